"""Runs to test with: the events of a healthy run, and a log as the bus would have recorded it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from contracts.base import Digest, Event, digest_of
from contracts.curation import DatasetCurated
from contracts.diagnosis import (
    Diagnosis,
    MethodChoice,
    RunAccepted,
    RungResult,
    RungSkipped,
    TrainingAdvised,
)
from contracts.envelope import Recorded, event_id
from contracts.evaluation import GateJudged
from contracts.job import (
    AdaptationJob,
    BaseModelRef,
    Behaviour,
    DataSource,
    Evaluation,
    EvaluationSet,
    GatePolicy,
    Provenance,
    RolloutPolicy,
)
from contracts.measure import Comparison, Interval, Measurement
from contracts.registry import AdapterPromoted, CandidateRegistered
from contracts.rollout import RolloutCompleted, StageJudged, StageStarted
from contracts.subjects import RunRef
from contracts.training import AdapterTrained, TrainingStarted

REF = RunRef("acme", "tool-calls-1")
START = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)

_GATES = {
    "G2": "The engine answers as training recorded it.",
    "G1": "The base calls the right tool in 0.0 % of 150 items.",
    "G3": "Held-out success rose by 61.3 points.",
    "G4": "96.0 % of answers parse and satisfy their schema.",
    "G5": "General capability is non-inferior within 2 points.",
}


def digest(name: str) -> Digest:
    """A stand-in content address."""
    return digest_of(name.encode())


def healthy_job() -> AdaptationJob:
    """A small function-calling job."""
    licensed = EvaluationSet(uri=digest("heldout"), licence="Apache-2.0")
    return AdaptationJob(
        name="tool-calls",
        tenant=REF.tenant,
        task_namespace="tool_calls",
        base=BaseModelRef(model="SmolLM2-135M-Instruct"),
        behaviour=Behaviour(description="Call the right function", scorer="tool_call", target=0.6),
        data=(
            DataSource(
                uri=digest("source"),
                licence="Apache-2.0",
                provenance=Provenance(source="Berkeley Function Calling Leaderboard"),
            ),
        ),
        evaluation=Evaluation(
            dev=EvaluationSet(uri=digest("dev"), licence="Apache-2.0"), heldout=licensed
        ),
        gates=GatePolicy(required=("G1", "G2", "G3", "G4", "G5")),
        rollout=RolloutPolicy(deployment="assistant"),
    )


def trained_adapter(
    *,
    adapter: Digest | None = None,
    weights: Digest | None = None,
    recipe: Digest | None = None,
) -> AdapterTrained:
    """Training's fact. Digests left out are stand-ins without content."""
    return AdapterTrained(
        adapter=adapter or digest("adapter"),
        recipe=recipe or digest("recipe"),
        base=digest("base"),
        tokenizer=digest("tokenizer"),
        weights=weights or digest("weights"),
        steps=120,
        train_loss=0.21,
        validation_loss=0.26,
        tokens_per_s=1850.0,
        peak_memory_bytes=1_400_000_000,
        duration_s=310.5,
    )


def _gain(metric: str, baseline: float, candidate: float) -> Comparison:
    gain = candidate - baseline
    return Comparison(
        metric=metric,
        baseline=baseline,
        candidate=candidate,
        difference=gain,
        interval=Interval(low=gain - 0.08, high=gain + 0.08),
        n=150,
        p_value=0.0001,
        detectable=0.07,
    )


def advised() -> TrainingAdvised:
    """Diagnosis's fact: a few examples help, not enough."""
    diagnosis = Diagnosis(
        base=Measurement(name="task_success", value=0.0, n=60),
        target=0.6,
        rungs=(
            RungResult(
                rung="few_shot",
                success=Measurement(name="task_success", value=0.08, n=60),
                against_base=_gain("task_success", 0.0, 0.08),
                added_prompt_tokens=412.0,
                latency_ms=180.0,
                reaches_target=False,
            ),
        ),
        skipped=(RungSkipped(rung="retrieval", reason="the behaviour needs no documents"),),
    )
    choice = MethodChoice(method="lora", reason="900 rows", rejected={"qlora": "memory suffices"})
    return TrainingAdvised(diagnosis=diagnosis, choice=choice)


def gate_verdicts(candidate: Digest) -> list[GateJudged]:
    """Every gate that `healthy_job` requires, passed, in the order the gates run."""
    gains = {
        "G3": (_gain("task_success", 0.0, 0.613),),
        "G5": (_gain("sluice_basics", 0.662, 0.658),),
    }
    return [
        GateJudged(
            gate=gate,
            candidate=candidate,
            verdict="passed",
            summary=summary,
            comparisons=gains.get(gate, ()),
            measurements=(Measurement(name="items", value=150, n=150),),
            evidence=digest(f"evidence-{gate}"),
            duration_s=12.5,
        )
        for gate, summary in _GATES.items()
    ]


def gated_events(
    *,
    job: AdaptationJob | None = None,
    trained: AdapterTrained | None = None,
    dataset: Digest | None = None,
    attempt: int = 1,
) -> list[Event]:
    """From acceptance to the last evaluation gate."""
    job = job or healthy_job()
    trained = trained or trained_adapter()
    return [
        RunAccepted(job=job, job_digest=digest_of(job.model_dump_json().encode()), attempt=attempt),
        advised(),
        DatasetCurated(
            card=dataset or digest("dataset"),
            train=digest("train.jsonl"),
            validation=digest("validation.jsonl"),
            rows={"train": 855, "validation": 45},
        ),
        TrainingStarted(
            recipe=trained.recipe, steps=120, memory_estimate_bytes={"weights": 540_000_000}
        ),
        trained,
        *gate_verdicts(trained.adapter),
    ]


def rollout_events(
    adapter_id: str, *, job: AdaptationJob | None = None, replaced: str = "base"
) -> list[Event]:
    """Shadow, every canary stage, completion."""
    policy = (job or healthy_job()).rollout
    stages = [("shadow", 0), *(("canary", stage.percent) for stage in policy.stages)]
    events: list[Event] = []
    for since, (stage, percent) in enumerate(stages):
        about = {
            "deployment": policy.deployment,
            "adapter_id": adapter_id,
            "stage": stage,
            "percent": percent,
        }
        events.append(StageStarted.model_validate({**about, "since": since * 50}))
        events.append(
            StageJudged.model_validate(
                {**about, "verdict": "passed", "summary": "48 of 50 outcomes succeed."}
            )
        )
    completed = RolloutCompleted(
        deployment=policy.deployment, adapter_id=adapter_id, replaced=replaced
    )
    return [*events, completed]


def healthy_run_events(
    *,
    job: AdaptationJob | None = None,
    trained: AdapterTrained | None = None,
    dataset: Digest | None = None,
    adapter_id: str = "SmolLM2-135M-Instruct-tool_calls-v1",
    card: Digest | None = None,
    bundle: Digest | None = None,
) -> list[Event]:
    """The whole log of a run that ends promoted. Digests left out are stand-ins."""
    job = job or healthy_job()
    trained = trained or trained_adapter()
    deployment = job.rollout.deployment
    registered = CandidateRegistered(
        adapter_id=adapter_id,
        adapter=trained.adapter,
        card=card or digest("card"),
        deployment=deployment,
    )
    promoted = AdapterPromoted(
        adapter_id=adapter_id, deployment=deployment, bundle=bundle or digest("bundle")
    )
    return [
        *gated_events(job=job, trained=trained, dataset=dataset),
        registered,
        *rollout_events(adapter_id, job=job),
        promoted,
    ]


def recorded_log(
    ref: RunRef, events: Iterable[Event], *, after: Sequence[Recorded] = ()
) -> list[Recorded]:
    """`after`, and then `events`, as the run log would hold them: each caused by the one before."""
    log = list(after)
    for event in events:
        cause = log[-1].id if log else f"submit-{ref}"
        seq = log[-1].seq + 1 if log else 1
        log.append(
            Recorded(
                id=event_id(ref, event, cause),
                ref=ref,
                event=event,
                cause=cause,
                at=START + timedelta(seconds=30 * seq),
                seq=seq,
            )
        )
    return log
