"""A failed gate begins another attempt within the job's budget, and the log shows the lineage."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import nats
import pytest

from contracts.base import Service
from contracts.diagnosis import RunAccepted
from contracts.evaluation import ChangedExample, GateJudged
from contracts.job import AdaptationJob, GatePolicy
from contracts.run import Run, fold
from contracts.training import AdapterTrained
from services.diagnosis import handlers
from services.diagnosis.replanning import next_attempt
from shared.messaging.broker import Bus
from shared.messaging.host import App
from shared.messaging.provision import provision
from shared.messaging.runlog import RunLog
from shared.messaging.steps import Step, Steps
from shared.testing.runs import REF, advised, gated_events, healthy_job, recorded_log

FORGOT = {"verdict": "failed", "remediation": "add_rehearsal"}


def job_with(attempts: int, rank: int = 16) -> AdaptationJob:
    job = healthy_job()
    lora = job.method.lora.model_copy(update={"r": rank})
    method = job.method.model_copy(update={"lora": lora})
    gates = GatePolicy(required=job.gates.required, attempts=attempts)
    return job.model_copy(update={"gates": gates, "method": method})


def events_of(job: AdaptationJob, **changes: object) -> list[Any]:
    """Up to the verdict of G5, with `changes`."""
    events = gated_events(job=job)
    assert isinstance(events[-1], GateJudged)
    return [*events[:-1], events[-1].model_copy(update=changes)]


def failed_run(job: AdaptationJob, **changes: object) -> tuple[Run, GateJudged]:
    events = events_of(job, **changes)
    return fold(REF, recorded_log(REF, events)), events[-1]


@pytest.mark.req("G11")
def test_forgetting_is_tried_again_at_half_the_rank() -> None:
    again = next_attempt(*failed_run(job_with(2), **FORGOT))
    assert again is not None
    assert again.replan is not None
    assert (again.attempt, again.job.method.lora.r, again.job.method.lora.alpha) == (2, 8, 16)
    assert (again.replan.gate, again.replan.change) == ("G5", "method.lora.r 16 → 8")


def curated(job: AdaptationJob, *roles: str, **policy: object) -> AdaptationJob:
    data = [job.data[0].model_copy(update={"role": role}) for role in ("positive", *roles)]
    curation = job.curation.model_copy(update=policy)
    return job.model_copy(update={"data": tuple(data), "curation": curation})


def changed(*items: str) -> tuple[ChangedExample, ...]:
    return tuple(ChangedExample(item=i, base=1.0, candidate=0.0, output="") for i in items)


@pytest.mark.req("G11")
@pytest.mark.parametrize(
    ("job", "verdict", "remediation", "change"),
    [
        pytest.param(
            curated(job_with(2), "rehearsal", rehearsal_share=0.1),
            {"gate": "G5", "remediation": "add_rehearsal"},
            "add_rehearsal",
            "curation.rehearsal_share 0.1 → 0.2",
            id="forgetting, with general rows to spare",
        ),
        pytest.param(
            curated(job_with(2), "rehearsal", rehearsal_share=0.5),
            {"gate": "G5", "remediation": "add_rehearsal"},
            "lower_rank",
            "method.lora.r 16 → 8",
            id="forgetting, and no more to rehearse",
        ),
        pytest.param(
            job_with(2),
            {"gate": "G6", "remediation": "safety_review"},
            "add_contrast_pairs",
            "curation.contrast_pairs 0 → 24",
            id="lost refusals",
        ),
        pytest.param(
            curated(job_with(2), contrast_pairs=24),
            {"gate": "G6", "remediation": "safety_review"},
            "add_contrast_pairs",
            "curation.contrast_pairs 24 → 48",
            id="lost refusals again",
        ),
        pytest.param(
            curated(job_with(2), withheld_rows=("r1",)),
            {"gate": "G7", "remediation": "redact", "changed": changed("r7", "r1", "r3")},
            "redact",
            "curation.withheld_rows 1 → 3: r3, r7",
            id="rows that came back out",
        ),
        pytest.param(
            job_with(2),
            {"gate": "G4", "remediation": "enable_constraints"},
            "enable_constraints",
            "behaviour.constrained false → true",
            id="a lost format",
        ),
    ],
)
def test_a_failed_gate_is_tried_again_with_its_remediation(
    job: AdaptationJob, verdict: dict[str, Any], remediation: str, change: str
) -> None:
    again = next_attempt(*failed_run(job, verdict="failed", **verdict))
    assert again is not None
    assert again.replan is not None
    assert (again.attempt, again.replan.gate) == (2, verdict["gate"])
    assert (again.replan.remediation, again.replan.change) == (remediation, change)
    assert again.job != job


@pytest.mark.req("G11")
@pytest.mark.parametrize(
    ("job", "changes"),
    [
        pytest.param(job_with(1), FORGOT, id="the budget is spent"),
        pytest.param(job_with(3, 2), FORGOT, id="no lower rank"),
        pytest.param(
            job_with(3), {"verdict": "failed", "remediation": "redact"}, id="no row is named"
        ),
        pytest.param(
            curated(job_with(3), contrast_pairs=48),
            {"verdict": "failed", "remediation": "safety_review"},
            id="all pairs were learned",
        ),
        pytest.param(
            job_with(3), {"verdict": "failed", "remediation": "rescope"}, id="needs a person"
        ),
        pytest.param(
            job_with(3), {"verdict": "inconclusive", "remediation": "more_items"}, id="undecided"
        ),
        pytest.param(job_with(3), {}, id="passed"),
    ],
)
def test_all_else_ends_the_run(job: AdaptationJob, changes: dict[str, str]) -> None:
    assert next_attempt(*failed_run(job, **changes)) is None


class _Clinic:
    async def diagnose(self, step: Step) -> Any:
        return advised()


@pytest.mark.req("G11")
async def test_the_log_shows_the_lineage_of_attempts(nats_server, settings) -> None:
    connection = await nats.connect(nats_server.url)
    js = connection.jetstream()
    await provision(js)
    log = RunLog(js)
    for number, event in enumerate(events_of(job_with(2), **FORGOT)):
        await log.append(REF, event, cause=f"cause-{number}")
    assert (await log.load(REF)).status == "failed"
    bus = Bus(Service.DIAGNOSIS, settings)
    handlers.register(Steps(bus), cast("Any", None), cast("Any", _Clinic()))
    async with App(bus).running(), asyncio.timeout(20):
        while (run := await log.load(REF)).attempt < 2 or run.advised is None:
            await asyncio.sleep(0.05)
    await connection.close()
    accepted = [r.event for r in run.log if isinstance(r.event, RunAccepted)]
    verdict = next(r for r in run.log if r.event == events_of(job_with(2), **FORGOT)[-1])
    assert [a.attempt for a in accepted] == [1, 2]
    assert [a.job.method.lora.r for a in accepted] == [16, 8]
    assert next(r for r in run.log if r.event is accepted[1]).cause == verdict.id
    assert accepted[1].replan is not None
    trained = next(r.event for r in run.log if isinstance(r.event, AdapterTrained))
    assert accepted[1].replan.candidate == trained.adapter
    assert run.status == "active"
    assert run.job is not None
    assert run.job.method.lora.r == 8
