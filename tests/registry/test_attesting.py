"""Each verdict becomes a link when its stage ends, and the chain holds what the log says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from contracts.registry import CandidateRegistered
from contracts.rollout import RolledBack, StageJudged
from contracts.run import fold
from contracts.subjects import RunRef
from services.registry.registry import Registry
from shared.bundles import verify_bundle
from shared.errors import SignatureInvalid
from shared.signing import SigningKey
from shared.testing.adapters import store_adapter, store_dataset
from shared.testing.runs import (
    gate_verdicts,
    gated_events,
    healthy_job,
    recorded_log,
    rollout_events,
)
from tests.registry.registry_office import ChatTokens, Office


@pytest.mark.req("R4")
def test_each_verdict_is_attested_when_its_stage_ends(office: Office) -> None:
    run = office.gated()
    registered = office.registry.register(run)
    assert isinstance(registered, CandidateRegistered)
    assert office.registry.attest(run) == ()  # there is no card yet to attest
    run = office.follow(run, registered)
    gates = office.registry.attest(run)
    assert [fact.name for fact in gates] == ["G2", "G1", "G3", "G4", "G5"]
    assert office.registry.attest(run) == gates  # killed before it stated them: the same again
    run = office.follow(run, *gates[:2])
    assert office.registry.attest(run) == gates[2:]  # killed in between: no gap, no double
    run = office.follow(run, *gates[2:])
    assert office.registry.attest(run) == ()
    started, judged, *_ = rollout_events(registered.adapter_id)
    failed = judged.model_copy(update={"verdict": "failed"})
    back = RolledBack(
        deployment="assistant", adapter_id=registered.adapter_id, to="base", reason="r", mend="m"
    )
    run = office.follow(run, started, failed, back)
    (last,) = office.registry.attest(run)  # what ended the run is on record too
    assert (last.name, last.index, last.attests) == ("G8", 5, run.log[-2].id)


@pytest.mark.req("R4")
def test_a_link_that_says_otherwise_than_the_log_closes_no_chain(office: Office) -> None:
    run = office.completed()
    forged = [
        replace(record, event=record.event.model_copy(update={"summary": "All is well."}))
        if isinstance(record.event, StageJudged) and record.event.percent == 10
        else record
        for record in run.log
    ]
    with pytest.raises(SignatureInvalid, match=r"G9-10%.* is not the log's verdict"):
        office.registry.promote(fold(run.ref, forged))


@pytest.mark.req("R4")
def test_a_key_may_be_rotated_in_the_middle_of_a_chain(office: Office, tmp_path: Path) -> None:
    run = office.gated()
    run = office.attested(office.follow(run, office.registry.register(run)))
    old, office.key = office.key, SigningKey.generate()
    registry = Registry(
        artifacts=office.artifacts,
        key=office.key,
        store=office.store,
        tokenizers=ChatTokens(),
        earlier_keys=(old.public,),
    )
    assert run.registered is not None
    for event in rollout_events(run.registered.adapter_id):
        run = office.follow(run, event)
        run = office.follow(run, *registry.attest(run))
    office.artifacts.fetch_tree(registry.promote(run).bundle, tmp_path / "bundle")
    assert verify_bundle(tmp_path / "bundle", (office.key.public, old.public)).state == "promoted"
    assert not verify_bundle(tmp_path / "bundle", office.key.public).ok


def test_a_candidate_whose_privacy_gate_may_stay_open_is_promoted(office: Office) -> None:
    job = healthy_job()
    gates = job.gates.model_copy(
        update={"required": (*job.gates.required, "G7"), "accept_inconclusive": ("G7",)}
    )
    dataset = store_dataset(office.artifacts)
    trained = store_adapter(office.artifacts, dataset, seed=8)
    open_ = gate_verdicts(trained.adapter)[-1].model_copy(
        update={"gate": "G7", "verdict": "inconclusive"}
    )
    events = gated_events(
        job=job.model_copy(update={"gates": gates}), trained=trained, dataset=dataset
    )
    run = fold(RunRef("acme", "r2"), recorded_log(RunRef("acme", "r2"), [*events, open_]))
    registered = office.registry.register(run)
    assert isinstance(registered, CandidateRegistered)
    for event in (registered, *rollout_events(registered.adapter_id)):
        run = fold(run.ref, recorded_log(run.ref, [event], after=run.log))
    assert office.registry.promote(run).adapter_id == registered.adapter_id
