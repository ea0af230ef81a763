"""The ladder: what follows a verdict, what an approval releases, who served before."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from contracts.base import Event, digest_of
from contracts.diagnosis import RunAccepted, RunCancelled
from contracts.envelope import Recorded
from contracts.job import (
    AdaptationJob,
    BaseModelRef,
    Behaviour,
    DataSource,
    Evaluation,
    EvaluationSet,
    Provenance,
    RolloutPolicy,
)
from contracts.registry import AdapterPromoted, CandidateRegistered, VerdictAttested
from contracts.rollout import RolledBack, RolloutCompleted, RolloutHeld, StageJudged, StageStarted
from contracts.run import Run, fold
from contracts.subjects import RunRef
from services.rollout import ladder

ADAPTER = "Base-tool_calls-v1"
ABOUT = {"deployment": "assistant", "adapter_id": ADAPTER}
CANDIDATE = CandidateRegistered(**ABOUT, adapter=digest_of(b"adapter"), card=digest_of(b"card"))
HELD = RolloutHeld(**ABOUT, reason="waits", mend="approve")


def run_of(*events: Event, name: str = "r1", approval: str = "automatic", after: int = 0) -> Run:
    rows = EvaluationSet(uri="rows.jsonl", licence="MIT")
    job = AdaptationJob(
        name="tool-calls",
        tenant="acme",
        task_namespace="tool_calls",
        base=BaseModelRef(model="Base"),
        behaviour=Behaviour(description="Call", scorer="tool_call", target=0.6),
        data=(DataSource(uri="r.jsonl", licence="MIT", provenance=Provenance(source="us")),),
        evaluation=Evaluation(dev=rows, heldout=rows),
        rollout=RolloutPolicy.model_validate({"deployment": "assistant", "approval": approval}),
    )
    log = (RunAccepted(job=job, job_digest=digest_of(b"job")), CANDIDATE, *events)
    ref = RunRef("acme", name)
    return fold(
        ref,
        (
            Recorded(
                id=f"{name}-{i}",
                ref=ref,
                event=event,
                cause="",
                at=datetime.now(UTC),
                seq=after + i,
            )
            for i, event in enumerate(log, start=1)
        ),
    )


def started(percent: int, since: int = 10) -> StageStarted:
    stage = "canary" if percent else "shadow"
    return StageStarted(**ABOUT, stage=stage, percent=percent, since=since)


def judged(percent: int, verdict: str = "passed") -> StageJudged:
    return StageJudged.model_validate(
        {
            **ABOUT,
            "stage": "canary" if percent else "shadow",
            "percent": percent,
            "verdict": verdict,
            "summary": "as measured",
        }
    )


@pytest.mark.req("G9")
@pytest.mark.parametrize(
    ("verdict", "approval", "follows"),
    [
        pytest.param(judged(0), "automatic", started(1, 99), id="shadow leads to 1 %"),
        pytest.param(judged(10), "automatic", started(50, 99), id="10 % leads to 50 %"),
        pytest.param(judged(100), "automatic", RolloutCompleted, id="100 % completes"),
        pytest.param(judged(100), "manual", RolloutCompleted, id="completion needs no approval"),
        pytest.param(judged(10), "manual", RolloutHeld, id="a manual rollout waits"),
        pytest.param(judged(10, "inconclusive"), "automatic", RolloutHeld, id="unclear waits"),
        pytest.param(judged(0, "failed"), "manual", RolledBack, id="a failure never waits"),
    ],
)
def test_a_verdict_has_one_consequence(verdict, approval, follows) -> None:
    run = run_of(started(verdict.percent), verdict, approval=approval)
    event = ladder.decide(run, verdict, since=99, incumbent="base")
    assert event == follows if isinstance(follows, StageStarted) else isinstance(event, follows)


@pytest.mark.req("G9")
@pytest.mark.parametrize(
    ("log", "releases"),
    [
        pytest.param([HELD], started(0, 99), id="before it began"),
        pytest.param([started(0), judged(0), HELD], started(1, 99), id="passed: the next stage"),
        pytest.param([started(10), HELD], started(10, 10), id="timeout: goes on collecting"),
        pytest.param(
            [started(10), judged(10, "inconclusive"), HELD],
            started(10, 99),
            id="inconclusive: the same on new traffic",
        ),
        pytest.param(
            [started(10), judged(10, "inconclusive"), HELD, started(10, 50), HELD],
            started(10, 50),
            id="the newest stage decides",
        ),
        pytest.param([started(10)], None, id="nothing waits"),
        pytest.param([started(10), HELD, RunCancelled()], None, id="the run has ended"),
    ],
)
def test_an_approval_releases_what_waits(log, releases) -> None:
    assert ladder.released(run_of(*log), since=99) == releases


@pytest.mark.req("G9")
def test_at_100_percent_the_stage_before_lends_its_stable_outcomes() -> None:
    run = run_of(started(10, 5), judged(10), started(50, 20), judged(50), started(100, 60))
    assert ladder.reference_since(run, started(100, 60)) == 20
    assert ladder.reference_since(run, started(50, 20)) == 20


@pytest.mark.req("G9")
def test_the_newest_promoted_adapter_is_what_a_rollback_returns_to() -> None:
    def promoted(version: int, after: int) -> Run:
        adapter = AdapterPromoted(
            adapter_id=f"Base-tool_calls-v{version}",
            deployment="assistant",
            bundle=digest_of(b"bundle"),
        )
        return run_of(started(100), adapter, name=f"v{version}", after=after)

    runs = [promoted(2, after=100), promoted(1, after=0), run_of(started(0), name="now")]
    assert ladder.incumbent(runs, "assistant") == "Base-tool_calls-v2"
    assert ladder.incumbent(runs, "another") == "base"
    assert ladder.occupant(runs, "assistant", but=RunRef("acme", "next")) == RunRef("acme", "now")
    assert ladder.occupant(runs, "assistant", but=RunRef("acme", "now")) is None


def attested(name: str, verdict: str) -> VerdictAttested:
    x = digest_of(b"x")
    return VerdictAttested(**ABOUT, name=name, index=0, attests=verdict, attestation=x, payload=x)


SHADOW = StageStarted(**ABOUT, stage="shadow", percent=0, since=0)


def shadow_judged(verdict: str) -> StageJudged:
    return StageJudged(**ABOUT, stage="shadow", percent=0, verdict=verdict, summary="")


@pytest.mark.req("R4")
def test_a_pass_waits_for_its_attestation_and_nothing_else_does() -> None:
    passed = run_of(SHADOW, shadow_judged("passed"), attested("G8", "r1-4"))
    judged, signed = passed.log[-2:]
    assert ladder.awaited(passed, judged) is None
    assert ladder.awaited(passed, signed) == judged
    gate = run_of(SHADOW, shadow_judged("passed"), attested("G2", "another"))
    assert ladder.awaited(gate, gate.log[-1]) is None
    for verdict in ("failed", "inconclusive"):
        doubtful = run_of(SHADOW, shadow_judged(verdict), attested("G8", "r1-4"))
        judged, signed = doubtful.log[-2:]
        assert ladder.awaited(doubtful, judged) == judged
        assert ladder.awaited(doubtful, signed) is None
    later = run_of(SHADOW, shadow_judged("passed"), attested("G8", "r1-4"), SHADOW)
    assert ladder.awaited(later, later.log[-2]) is None  # the next stage has begun


def test_an_approval_waits_for_the_attestation_of_the_pass_it_builds_on() -> None:
    held = run_of(SHADOW, shadow_judged("passed"), HELD)
    assert ladder.unsigned_pass(held)
    signed = run_of(SHADOW, shadow_judged("passed"), HELD, attested("G8", "r1-4"))
    assert not ladder.unsigned_pass(signed)
    assert not ladder.unsigned_pass(run_of(SHADOW, shadow_judged("inconclusive"), HELD))
    assert not ladder.unsigned_pass(run_of(SHADOW, HELD))
