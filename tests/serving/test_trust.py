"""Full traffic takes a closed chain: strip, forge or withdraw a link, and the base answers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from contracts.base import Event, digest_of
from contracts.card import ATTESTATION_TYPE
from contracts.envelope import Recorded
from contracts.registry import AdapterPromoted, VerdictAttested
from contracts.rollout import RolledBack, RolloutCompleted, StageStarted
from contracts.subjects import RunRef
from services.serving.directory import PROMOTED_WITHIN_S, Directory, UnknownModel
from services.serving.trust import Trust
from shared.artifacts import Tree
from shared.bundles import layout
from shared.errors import SluiceError
from shared.signing import SigningKey, open_envelope, sign
from shared.testing.runs import REF, recorded_log, rollout_events
from tests.registry.registry_office import Office, open_office


@pytest.fixture(scope="module")
def office(tmp_path_factory) -> Office:
    office = open_office(tmp_path_factory.mktemp("office"))
    yield office
    office.store.close()


@pytest.fixture(scope="module")
def log(office) -> list[Recorded]:
    """A run's whole log, with a real card and a real bundle."""
    run = office.completed()
    return list(office.follow(run, office.registry.promote(run)).log)


def ring(office) -> Path:
    return Path(office.artifacts._root).parent / "keys" / "signing-key.pub"


def routed(office, records, *, after_s: float = 1e6, trust: Trust | None = None) -> Directory:
    """The directory as the projection makes it, `after_s` seconds after the last record."""
    end = records[-1].at.timestamp() + after_s
    directory, trust = Directory(now=lambda: end), trust or Trust(office.artifacts, ring(office))
    for record in records:
        try:
            trust.require(record)
        except SluiceError:
            directory.refuse(record)
        else:
            directory.apply(record)
    return directory


def answers(directory: Directory) -> set[tuple[str, str]]:
    """What answers a hundred conversations: (arm, model)."""
    routes = [
        directory.resolve("assistant", tenant="acme", evaluate=False, conversation=str(i))
        for i in range(100)
    ]
    return {(route.arm, route.target.model) for route in routes}


ADAPTER = "SmolLM2-135M-Instruct-tool_calls-v1"
PROMOTED, BASE = {("stable", ADAPTER)}, {("stable", "base")}


def without(log, kind: type[Event], **fields: object) -> list[Recorded]:
    def gone(event: Event) -> bool:
        return isinstance(event, kind) and all(getattr(event, k) == v for k, v in fields.items())

    kept = [record for record in log if not gone(record.event)]
    assert len(kept) == len(log) - 1
    return kept


def with_bundle(office, log, change) -> list[Recorded]:
    """The log with another bundle in its last fact."""
    promoted = log[-1].event
    files = dict(office.artifacts.tree(promoted.bundle).files)
    change(files)
    forged = promoted.model_copy(update={"bundle": office.artifacts.put(Tree(files).to_bytes())})
    return [*log[:-1], *recorded_log(REF, [forged], after=log[:-1])[-1:]]


@pytest.mark.req("R4")
def test_a_whole_chain_serves_everybody(office, log) -> None:
    assert answers(routed(office, log)) == PROMOTED


@pytest.mark.req("R4")
def test_without_its_promotion_a_completed_rollout_serves_nobody(office, log) -> None:
    stripped = without(log, AdapterPromoted)
    assert answers(routed(office, stripped)) == BASE
    waiting = routed(office, stripped, after_s=PROMOTED_WITHIN_S - 1)
    assert answers(waiting) == {("canary", ADAPTER)}  # the registry is about to sign
    with pytest.raises(UnknownModel):
        waiting.resolve(ADAPTER, tenant="acme", evaluate=False, conversation="c")


@pytest.mark.req("R4")
@pytest.mark.parametrize("percent", [0, 1, 10, 50])
def test_a_rung_is_not_reached_over_a_missing_verdict(office, log, percent) -> None:
    name = f"G9-{percent}%" if percent else "G8"
    skipped = without(log, VerdictAttested, name=name)
    started = next(
        i
        for i, record in enumerate(skipped)
        if isinstance(record.event, StageStarted) and record.event.percent > percent
    )
    before = answers(routed(office, skipped[:started], after_s=0))
    assert answers(routed(office, skipped[: started + 1], after_s=0)) == before
    to_the_end = [r for r in skipped if not isinstance(r.event, AdapterPromoted)]
    assert isinstance(to_the_end[-1].event, RolloutCompleted)
    assert answers(routed(office, to_the_end, after_s=0)) == before


@pytest.mark.req("R4")
def test_a_stage_that_failed_opens_no_way_up(office) -> None:
    run = office.gated(seed=3)
    run = office.attested(office.follow(run, office.registry.register(run)))
    adapter_id = run.registered.adapter_id
    shadow, judged, canary, *_ = rollout_events(adapter_id)
    for verdict in ("failed", "passed"):
        judged = judged.model_copy(update={"verdict": verdict})
        tried = office.follow(office.attested(office.follow(run, shadow, judged)), canary)
        found = routed(office, tried.log, after_s=0).deployment("acme", "assistant")
        assert found.mode == ("canary" if verdict == "passed" else "shadow")


@pytest.mark.req("R4")
@pytest.mark.parametrize("how", ["unsigned", "of another key", "of another card", "twice"])
def test_a_verdict_counts_only_with_its_attestation(office, log, how, tmp_path) -> None:
    """A pass that somebody wrote into the log opens nothing."""
    place = next(i for i, r in enumerate(log) if getattr(r.event, "name", "") == "G8")
    fact = log[place].event
    envelope = json.loads(office.artifacts.get(fact.attestation))
    match how:
        case "unsigned":
            forged = json.dumps({**envelope, "signatures": []}).encode()
        case "of another key":
            statement = open_envelope(office.artifacts.get(fact.attestation), [office.key.public])
            forged = sign(
                ATTESTATION_TYPE, statement.predicate, statement.subjects, SigningKey.generate()
            )
        case "of another card":
            statement = open_envelope(office.artifacts.get(fact.attestation), [office.key.public])
            other = {**statement.predicate, "card": digest_of(b"another")}
            forged = sign(ATTESTATION_TYPE, other, statement.subjects, office.key)
        case _:
            forged = office.artifacts.get(log[place - 3].event.attestation)
    lie = fact.model_copy(update={"attestation": office.artifacts.put(forged)})
    records = [replace(r, event=lie) if i == place else r for i, r in enumerate(log[: place + 2])]
    assert isinstance(records[-1].event, StageStarted)
    before = routed(office, log[:place], after_s=0).deployment("acme", "assistant")
    after = routed(office, records, after_s=0).deployment("acme", "assistant")
    assert (before.mode, after.mode, after.percent) == ("shadow", "shadow", 0)


@pytest.mark.req("R4")
@pytest.mark.parametrize(
    "path",
    [
        layout.PROMOTION,
        layout.CARD,
        "attestations/00-G2.dsse.json",
        "attestations/05-G8.dsse.json",
        "attestations/09-G9-100%.dsse.json",
        "adapter/adapter_model.safetensors",
        layout.README,
    ],
)
def test_a_bundle_that_lacks_a_file_serves_nobody(office, log, path) -> None:
    assert answers(routed(office, with_bundle(office, log, lambda files: files.pop(path)))) == BASE


@pytest.mark.req("R4")
def test_a_bundle_with_another_adapters_weights_or_links_serves_nobody(office, log) -> None:
    other = office.artifacts.put(b"other weights")
    weights = "adapter/adapter_model.safetensors"
    assert answers(
        routed(office, with_bundle(office, log, lambda files: files.update({weights: other})))
    ) == (BASE)

    def swap(files: dict[str, str]) -> None:
        one, two = "attestations/06-G9-1%.dsse.json", "attestations/07-G9-10%.dsse.json"
        files[one], files[two] = files[two], files[one]

    assert answers(routed(office, with_bundle(office, log, swap))) == BASE


@pytest.mark.req("R4")
def test_a_card_for_another_tenant_gives_no_share(office, log) -> None:
    stolen = [replace(record, ref=RunRef("globex", "r1")) for record in log]
    directory = routed(office, stolen)
    route = directory.resolve("assistant", tenant="globex", evaluate=False, conversation="c")
    assert (route.target.model, route.mirror) == ("base", None)


@pytest.mark.req("R4")
def test_a_key_that_is_trusted_no_more_takes_its_adapters_out_of_service(tmp_path) -> None:
    office = open_office(tmp_path)
    run = office.completed()
    records = list(office.follow(run, office.registry.promote(run)).log)
    trust = Trust(office.artifacts, ring(office))
    directory = routed(office, records, trust=trust)
    assert answers(directory) == PROMOTED
    SigningKey.rotate(ring(office).parent)
    assert trust.lost() == ()  # a rotation keeps the old key in the ring
    assert answers(routed(office, records)) == PROMOTED
    newest, *_ = ring(office).read_text().split("-----BEGIN PUBLIC KEY-----\n")[1:]
    ring(office).write_text("-----BEGIN PUBLIC KEY-----\n" + newest)
    assert trust.lost() == ((REF.tenant, ADAPTER),)
    directory.distrust(REF.tenant, ADAPTER)
    assert answers(directory) == BASE
    assert answers(routed(office, records)) == BASE  # after a restart too
    office.store.close()


@pytest.mark.req("R5")
def test_a_rollback_goes_to_a_promoted_adapter_or_to_the_base(office, log) -> None:
    back = RolledBack(deployment="assistant", adapter_id="x-y-v2", to=ADAPTER, reason="r", mend="m")
    promoted = recorded_log(REF, [back], after=log)
    assert answers(routed(office, promoted)) == PROMOTED
    never = recorded_log(REF, [back], after=log[:-1])
    assert answers(routed(office, never)) == BASE
