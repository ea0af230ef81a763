"""Registration, promotion and history: each happens once, however often it is asked for."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.commands import Withdraw
from contracts.registry import AdapterId, CandidateRegistered, RegistrationRefused
from contracts.rollout import RolledBack
from contracts.run import fold
from contracts.subjects import RunRef
from services.registry.settings import RegistrySettings
from services.registry.versions import next_id
from shared.errors import InvalidInput, SignatureInvalid
from shared.signing import SigningKey
from shared.testing.adapters import (
    lora_config,
    lora_shapes,
    safetensors_bytes,
)
from shared.testing.runs import (
    START,
    gate_verdicts,
    healthy_job,
    recorded_log,
)
from tests.registry.registry_office import Office, open_office

LABEL = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
TASK = st.from_regex(r"[a-z0-9](?:[a-z0-9_.]{0,10}[a-z0-9])?", fullmatch=True)


@pytest.mark.req("R1")
@given(LABEL, TASK, st.integers(1, 10**6))
def test_an_adapter_id_parses_back_to_its_parts(base: str, task: str, version: int) -> None:
    made = AdapterId(base=base, task=task, version=version)
    assert AdapterId.parse(str(made)) == made
    assert str(AdapterId.parse(str(made))) == str(made)


@pytest.mark.req("R1")
@given(LABEL, TASK, st.sets(st.integers(1, 50)))
def test_the_next_version_is_above_every_one_taken(base: str, task: str, taken: set[int]) -> None:
    job = healthy_job().model_copy(
        update={
            "base": healthy_job().base.model_copy(update={"name": base}),
            "task_namespace": task,
        }
    )
    assert next_id(job, taken).version == max(taken, default=0) + 1


def test_a_base_that_no_id_can_spell_is_refused_with_a_mend() -> None:
    base = healthy_job().base.model_copy(update={"model": "models/my base"})
    with pytest.raises(InvalidInput, match="cannot begin an adapter id"):
        next_id(healthy_job().model_copy(update={"base": base}), ())


@pytest.mark.req("R1")
def test_a_redelivered_registration_gives_the_same_id_card_and_history(office: Office) -> None:
    run = office.gated()
    first = office.registry.register(run)
    again = office.registry.register(run)
    assert isinstance(first, CandidateRegistered)
    assert first == again
    assert first.adapter_id == "SmolLM2-135M-Instruct-tool_calls-v1"
    assert [row.what for row in office.store.read(lambda b: b.history(first.adapter_id))] == [
        "registered"
    ]


@pytest.mark.req("R1")
def test_racing_registrations_of_one_candidate_agree(office: Office) -> None:
    run = office.gated()
    with ThreadPoolExecutor(8) as pool:
        facts = list(pool.map(lambda _: office.registry.register(run), range(16)))
    assert len({fact.model_dump_json() for fact in facts}) == 1
    assert len(office.store.read(lambda b: b.adapters())) == 1


@pytest.mark.req("R1")
def test_racing_candidates_get_versions_of_their_own(office: Office) -> None:
    runs = [office.gated(seed=seed) for seed in range(6)]
    with ThreadPoolExecutor(6) as pool:
        facts = list(pool.map(office.registry.register, runs))
    ids = {fact.adapter_id for fact in facts if isinstance(fact, CandidateRegistered)}
    assert ids == {f"SmolLM2-135M-Instruct-tool_calls-v{n}" for n in range(1, 7)}


def test_a_crash_before_the_row_is_written_costs_no_version(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    from services.registry.store import Ledger

    run = office.gated()
    with monkeypatch.context() as patch:

        def die(*_: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(Ledger, "add", die)
        with pytest.raises(KeyboardInterrupt):
            office.registry.register(run)
    fact = office.registry.register(run)
    assert isinstance(fact, CandidateRegistered)
    assert fact.adapter_id.endswith("-v1")


def test_a_second_attempt_with_the_same_weights_is_a_new_candidate(office: Office) -> None:
    run = office.gated()
    office.registry.register(run)
    fact = office.registry.register(replace(run, attempt=2))
    assert isinstance(fact, CandidateRegistered)
    assert fact.adapter_id.endswith("-v2")


def test_a_candidate_with_a_failed_gate_is_refused(office: Office) -> None:
    run = office.gated()
    assert run.trained is not None
    verdict = gate_verdicts(run.trained.adapter)[-1]
    run = office.follow(run, verdict.model_copy(update={"verdict": "inconclusive"}))
    fact = office.registry.register(run)
    assert isinstance(fact, RegistrationRefused)
    assert "required gate" in fact.reason


def _config(**changes: object) -> dict[str, bytes]:
    return {"adapter_config.json": json.dumps(lora_config(**changes)).encode()}  # type: ignore[arg-type]


def _weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, bytes]:
    return {"adapter_model.safetensors": safetensors_bytes(shapes)}


GOOD = safetensors_bytes(lora_shapes())
FIRST = next(iter(lora_shapes()))


@pytest.mark.req("R2")
@pytest.mark.req("F13")
@pytest.mark.parametrize(
    ("files", "reason"),
    [
        pytest.param({"adapter_model.bin": b"\x80\x04."}, "adapter_model.bin", id="pickle"),
        pytest.param({"tricks.py": b"import os"}, "tricks.py", id="code"),
        pytest.param(_config(r=8), "rank 8 is declared", id="another rank than the tensors"),
        pytest.param(_config(r=100_000), "adapter_config.json.r", id="rank above the maximum"),
        pytest.param(_config(alpha=99), "the recipe says 8", id="another alpha than the recipe"),
        pytest.param(_config(use_dora=True), "use_dora", id="DoRA"),
        pytest.param(_config(use_rslora=True), "use_rslora", id="rsLoRA"),
        pytest.param(_config(modules_to_save=["lm_head"]), "modules_to_save", id="saved modules"),
        pytest.param(_config(rank_pattern={"q_proj": 2}), "rank_pattern", id="rank pattern"),
        pytest.param(
            _config(auto_mapping={"parent_library": "os"}), "auto_mapping", id="imports a class"
        ),
        pytest.param(_config(target_modules=["k_proj"]), "target_modules", id="other modules"),
        pytest.param(_config(target_modules="(a+)+$"), "target_modules", id="pattern of modules"),
        pytest.param({"adapter_config.json": b"{"}, "Invalid JSON", id="broken configuration"),
        pytest.param(
            {"adapter_config.json": b" " * (2 << 20)}, "larger than", id="huge configuration"
        ),
        pytest.param({"adapter_model.safetensors": b"\x80\x04."}, "safetensors", id="no tensors"),
        pytest.param(
            {"adapter_model.safetensors": b"\xff" * 64}, "declares a header", id="endless header"
        ),
        pytest.param({"adapter_model.safetensors": GOOD[:-4]}, "describes", id="cut short"),
        pytest.param({"adapter_model.safetensors": GOOD + b"PK"}, "describes", id="data behind"),
        pytest.param(
            _weights({**lora_shapes(), "lm_head.weight": (4, 4)}), "no LoRA matrix", id="more"
        ),
        pytest.param(
            _weights({k: v for k, v in lora_shapes().items() if k != FIRST}),
            "one of A and B only",
            id="A without B",
        ),
        pytest.param({"recipe.json": b"{}"}, "recipe.json", id="no recipe"),
    ],
)
def test_an_adapter_that_is_unsafe_or_unfit_is_refused_with_a_mend(
    office: Office, files: dict[str, bytes], reason: str
) -> None:
    fact = office.registry.register(office.gated(files=files))
    assert isinstance(fact, RegistrationRefused)
    assert reason in fact.reason
    assert fact.mend
    assert not office.store.read(lambda b: b.adapters())


@pytest.mark.req("R2")
def test_a_recipe_for_another_dataset_than_the_runs_is_refused(office: Office) -> None:
    run = office.gated()
    assert run.dataset is not None
    other = run.dataset.model_copy(update={"card": "sha256:" + "1" * 64})
    fact = office.registry.register(replace(run, dataset=other))
    assert isinstance(fact, RegistrationRefused)
    assert "recipe.json.dataset" in fact.reason


def test_a_missing_artifact_is_a_refusal_not_a_crash(office: Office) -> None:
    run = office.gated()
    assert run.trained is not None
    gone = run.trained.model_copy(update={"adapter": "sha256:" + "2" * 64})
    fact = office.registry.register(replace(run, trained=gone))
    assert isinstance(fact, RegistrationRefused)
    assert "not in the artifact store" in fact.reason


@pytest.mark.req("G10")
def test_promotion_repeats_to_the_same_bundle_and_one_line_of_history(office: Office) -> None:
    run = office.completed()
    first, again = office.registry.promote(run), office.registry.promote(run)
    assert first == again
    history = office.store.read(lambda b: b.history(first.adapter_id))
    assert [(row.what, row.who) for row in history] == [
        ("registered", "registry"),
        ("promoted", "rollout"),
    ]
    row = office.store.read(lambda b: b.adapter(first.adapter_id))
    assert row is not None
    assert (row.status, row.bundle) == ("promoted", first.bundle)


@pytest.mark.req("R4")
def test_an_incomplete_rollout_is_not_promoted(office: Office) -> None:
    run = office.completed()
    early = fold(run.ref, [record for record in run.log if record.seq < run.version])
    with pytest.raises(InvalidInput, match="rollout: is not complete"):
        office.registry.promote(early)
    skipped = [
        record
        for record in run.log
        if not (record.event.fact == "stage_judged" and record.event.percent == 10)  # type: ignore[attr-defined]
    ]
    with pytest.raises(InvalidInput, match="G9-10%: has no passed verdict"):
        office.registry.promote(fold(run.ref, skipped))


@pytest.mark.req("R4")
def test_a_card_that_another_key_signed_is_not_promoted(office: Office) -> None:
    run = office.completed()
    office.key = SigningKey.generate()
    with pytest.raises(SignatureInvalid, match="unknown key"):
        office.registry.promote(run)


@pytest.mark.req("R4")
def test_a_card_of_another_run_is_not_promoted(office: Office) -> None:
    run = office.completed()
    foreign = RunRef(run.ref.tenant, "another-run")
    stolen = fold(foreign, recorded_log(foreign, [record.event for record in run.log]))
    with pytest.raises(SignatureInvalid, match="another run"):
        office.registry.promote(stolen)


@pytest.mark.req("R5")
def test_a_rollback_restores_what_was_replaced_and_says_why(office: Office) -> None:
    old = office.registry.promote(office.completed()).adapter_id
    run = office.completed(seed=1, replaced=old)
    new = office.registry.promote(run).adapter_id
    status = {row.id: row.status for row in office.store.read(lambda b: b.adapters())}
    assert status == {old: "retired", new: "promoted"}
    row = office.store.read(lambda b: b.adapter(new))
    assert row is not None
    assert row.rollback == old

    fact = RolledBack(
        deployment="assistant", adapter_id=new, to=old, reason="errors rose", mend="see the alert"
    )
    record = recorded_log(run.ref, [fact], after=run.log)[-1]
    for _ in range(2):
        office.registry.roll_back(record)
    status = {row.id: row.status for row in office.store.read(lambda b: b.adapters())}
    assert status == {old: "promoted", new: "rolled_back"}
    history = office.store.read(lambda b: b.history(new))
    assert [(line.what, line.why) for line in history][-1] == ("rolled_back", "errors rose")
    assert len(history) == 3


WITHDRAW = Withdraw(kind="safety_override", reason="it harms")


@pytest.mark.req("R5")
def test_a_withdrawn_adapter_is_not_promoted(office: Office) -> None:
    run = office.completed()
    fact = office.registry.withdraw(run, WITHDRAW, "command-1", START)
    assert (fact.to, fact.kind, fact.reason) == ("base", "safety_override", "it harms")
    with pytest.raises(InvalidInput, match="withdrawn"):
        office.registry.promote(run)
    assert office.registry.withdraw(run, WITHDRAW, "command-1", START) == fact
    history = office.store.read(lambda ledger: ledger.history(fact.adapter_id))
    assert [line.what for line in history] == ["registered", "withdrawn"]


@pytest.mark.req("R5")
def test_what_was_there_before_answers_unless_it_is_withdrawn_too(office: Office) -> None:
    first = office.completed()
    old = office.registry.promote(first).adapter_id
    second = office.completed(seed=1, replaced=old)
    office.registry.promote(second)
    assert office.registry.withdraw(second, WITHDRAW, "a", START).to == old
    office.registry.withdraw(first, WITHDRAW, "b", START)
    assert office.registry.withdraw(second, WITHDRAW, "a", START).to == "base"


def test_a_run_without_an_adapter_has_nothing_to_withdraw(office: Office) -> None:
    with pytest.raises(InvalidInput, match="no registered adapter"):
        office.registry.withdraw(office.gated(), WITHDRAW, "c", START)


def test_the_registry_remembers_across_restarts(tmp_path: Path) -> None:
    office = open_office(tmp_path)
    run = office.gated()
    before = office.registry.register(run)
    office.store.close()
    office = open_office(tmp_path)
    assert office.registry.register(run) == before
    office.store.close()


def test_settings_place_the_database_and_key_under_home(tmp_path: Path) -> None:
    settings = RegistrySettings(home=tmp_path)
    assert settings.database_url == f"sqlite:///{tmp_path / 'registry.db'}"
    assert settings.key_folder == tmp_path / "keys" / "registry"
