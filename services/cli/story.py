"""Each fact of a run in words: one headline, the numbers behind it, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from contracts.base import Event, Problem
from contracts.curation import (
    CurationHalted,
    DatasetCurated,
    RecalibrationRequired,
    SynthesisRequested,
)
from contracts.diagnosis import (
    DecisionReopened,
    Diagnosis,
    DiagnosisConcluded,
    DiagnosisHalted,
    RunAccepted,
    RunCancelled,
    RunRejected,
    TrainingAdvised,
    TrainingDeclined,
    TrainingVetoed,
    Usage,
)
from contracts.evaluation import GateJudged
from contracts.fault import StepFailed
from contracts.measure import VerdictName
from contracts.rollout import RolledBack, RolloutCompleted, RolloutHeld, StageJudged, StageStarted
from contracts.run import Run
from contracts.synthesis import RowsSynthesized
from contracts.training import AdapterTrained, TrainingStarted, TrainingStopped
from services.cli import numbers
from services.cli.tellings import registry
from services.cli.tellings.telling import Mood, Telling

MOST_PROBLEMS = 8

REMEDIES = {
    "repair_registry": "repair the artifact the summary names, then `sluice retry`",
    "retrain": "train with more data, more steps or a higher rank, then submit again",
    "rescope": "narrow the behaviour, or lower `gates.minimum_gain` with a reason",
    "enable_constraints": "serve with constrained decoding, or add format examples",
    "lower_rank": "lower `method.lora.r` or the learning rate",
    "add_rehearsal": "add data with role `rehearsal`",
    "more_items": "add evaluation items: the sample is too small to decide",
    "safety_review": "have a person read the changed answers; add refusals to the training data",
    "redact": "redact and de-duplicate the training rows the evidence names, then submit again",
    "vary_prompts": "word the training requests in several ways, then submit again",
}


def tell(event: Event) -> Telling:
    """Any fact in words."""
    return _TELLERS[type(event)](event)


def tells(event_type: type[Event]) -> bool:
    """Whether there are words for this type."""
    return event_type in _TELLERS


def stopped_by(run: Run) -> Telling | None:
    """Why a run did not reach its goal, and what to do; None if nothing stopped it."""
    if run.status in {"active", "promoted", "declined", "diagnosed"}:
        return None
    for record in reversed(run.log):
        telling = tell(record.event)
        if telling.mood == "bad":
            return telling
    return None


def _mood(verdict: VerdictName) -> Mood:
    return "good" if verdict == "passed" else "bad"


def _short(digest: str) -> str:
    return digest[:19] + "…"


def _problems(rows: tuple[Problem, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    details = tuple(f"{row.where}: {row.problem}" for row in rows[:MOST_PROBLEMS])
    if more := len(rows) - len(details):
        details = (*details, f"… and {more} more; --json shows all")
    return details, tuple(dict.fromkeys(row.mend for row in rows if row.mend))


def _diagnosis(found: Diagnosis) -> tuple[str, ...]:
    lines = [f"base: {numbers.measurement(found.base)}; target {numbers.share(found.target)}"]
    lines += [
        f"{row.rung}{f' ({row.variant})' if row.variant else ''}: "
        f"{numbers.comparison(row.against_base)}, "
        f"{row.added_prompt_tokens:+.0f} prompt tokens, {row.latency_ms:.0f} ms"
        + _cost(row.usage)
        + (", reaches the target" if row.reaches_target else "")
        for row in found.rungs
    ]
    lines += [f"{row.rung}: not run: {row.reason}" for row in found.skipped]
    return (*lines, *found.notes)


def _cost(usage: Usage | None) -> str:
    if usage is None or usage.cost_per_success is None:
        return ""
    return f", {usage.cost_per_success:.2g} per success"


def _accepted(event: RunAccepted) -> Telling:
    job = event.job
    return Telling(
        headline=f"job accepted (attempt {event.attempt}): {job.behaviour.description}",
        details=(
            f"base {job.base.label}, deployment {job.rollout.deployment}, "
            f"job {_short(event.job_digest)}",
            *(
                [f"replanned after {event.replan.gate} failed: {event.replan.change}"]
                if event.replan
                else []
            ),
        ),
    )


def _rejected(event: RunRejected) -> Telling:
    details, mends = _problems(event.problems)
    return Telling(headline="job rejected", details=details, mood="bad", mends=mends)


def _cancelled(event: RunCancelled) -> Telling:
    return Telling(
        headline="cancelled" + (f": {event.reason}" if event.reason else ""),
        mood="bad",
        mends=("start again with `sluice retry`",),
    )


def _advised(event: TrainingAdvised) -> Telling:
    rejected = tuple(f"not {name}: {why}" for name, why in event.choice.rejected.items())
    return Telling(
        headline=f"no lighter rung reaches the target: train with {event.choice.method}",
        details=(*_diagnosis(event.diagnosis), event.choice.reason, *rejected),
    )


def _concluded(event: DiagnosisConcluded) -> Telling:
    rejected = tuple(f"not {name}: {why}" for name, why in event.choice.rejected.items())
    return Telling(
        headline=f"no lighter rung reaches the target: {event.choice.method} would train",
        details=(*_diagnosis(event.diagnosis), event.choice.reason, *rejected),
        mood="good",
    )


def _declined(event: TrainingDeclined) -> Telling:
    return Telling(
        headline=f"do not train: {event.rung} suffices",
        details=(
            *_diagnosis(event.diagnosis),
            f"certificate {event.certificate}",
            *(f"open again if {condition.in_words}" for condition in event.conditions),
        ),
        mood="good",
    )


def _vetoed(event: TrainingVetoed) -> Telling:
    details, mends = _problems(event.problems)
    return Telling(
        headline="do not train: it does not pay",
        details=details,
        mood="bad",
        mends=(*mends, "tell the run of a new price or volume with `sluice observe`"),
    )


def _reopened(event: DecisionReopened) -> Telling:
    return Telling(
        headline=f"the decision is open again: {event.reason}",
        details=(f"seen by {event.source}",) if event.source else (),
        mends=("ask anew with `sluice retry`",),
    )


def _halted(event: DiagnosisHalted | CurationHalted) -> Telling:
    details, mends = _problems(event.problems)
    return Telling(
        headline=f"{event.service} halted: {event.reason.replace('_', ' ')}",
        details=details,
        mood="bad",
        mends=mends,
    )


def _recalibration(event: RecalibrationRequired) -> Telling:
    details, mends = _problems(event.problems)
    disputed = ", ".join(dispute.item for dispute in event.disputes[:MOST_PROBLEMS])
    return Telling(
        headline="curation halted: raters agree too little, the rubric wants recalibration",
        details=(*details, f"most disputed rows: {disputed}") if disputed else details,
        mood="bad",
        mends=mends,
    )


def _synthesis_requested(event: SynthesisRequested) -> Telling:
    return Telling(headline=f"{event.rows} synthetic rows requested")


def _synthesized(event: RowsSynthesized) -> Telling:
    rejected = tuple(f"rejected: {why}: {n}" for why, n in sorted(event.rejected.items()))
    return Telling(
        headline=f"{event.accepted} of {event.requested} synthetic rows accepted",
        details=(f"distinct-2 {event.distinct_2:.2f}", *rejected),
    )


def _curated(event: DatasetCurated) -> Telling:
    rows = ", ".join(f"{name} {count}" for name, count in event.rows.items())
    return Telling(headline=f"dataset curated: {rows}", details=(f"card {event.card}",))


def _training_started(event: TrainingStarted) -> Telling:
    parts = event.memory_estimate_bytes
    memory = ", ".join(f"{name} {numbers.size(count)}" for name, count in parts.items())
    return Telling(
        headline=f"training started: {event.steps} steps",
        details=(f"memory estimate {numbers.size(sum(parts.values()))}: {memory}",)
        if parts
        else (),
    )


def _trained(event: AdapterTrained) -> Telling:
    losses = f"train loss {event.train_loss:.4g}"
    if event.validation_loss is not None:
        losses += f", validation loss {event.validation_loss:.4g}"
    resumed = () if event.resumed_from is None else (f"resumed from step {event.resumed_from}",)
    return Telling(
        headline=f"adapter trained in {numbers.duration(event.duration_s)}: {event.steps} steps",
        details=(
            losses,
            f"{event.tokens_per_s:.0f} tokens/s, peak {numbers.size(event.peak_memory_bytes)}",
            f"adapter {event.adapter}",
            *resumed,
        ),
    )


def _training_stopped(event: TrainingStopped) -> Telling:
    return Telling(
        headline=f"training stopped at step {event.step}: {event.reason.replace('_', ' ')}",
        details=(event.message,),
        mood="bad",
        mends=(event.mend,),
    )


def _gate(event: GateJudged) -> Telling:
    changed = tuple(
        f"changed: {row.item}: {row.base:g} → {row.candidate:g}" for row in event.changed[:5]
    )
    remedy = REMEDIES.get(event.remediation)
    return Telling(
        headline=f"{event.gate} {event.verdict}: {event.summary}",
        details=(
            *map(numbers.comparison, event.comparisons),
            *map(numbers.measurement, event.measurements),
            *(changed if event.verdict != "passed" else ()),
            f"took {numbers.duration(event.duration_s)}",
        ),
        mood=_mood(event.verdict),
        mends=() if remedy is None else (remedy,),
    )


def _stage_started(event: StageStarted) -> Telling:
    if event.outcomes is None:
        return Telling(headline=f"{event.label} began on {event.deployment}")
    plan = f"it wants {event.outcomes} outcomes, about {event.requests} requests"
    return Telling(
        headline=f"{event.label} began on {event.deployment}",
        details=(f"{plan}; {event.detects}",),
    )


def _stage_judged(event: StageJudged) -> Telling:
    stage = "shadow" if event.stage == "shadow" else f"canary {event.percent}%"
    return Telling(
        headline=f"{stage} {event.verdict}: {event.summary}",
        details=(
            *map(numbers.comparison, event.comparisons),
            *map(numbers.measurement, event.measurements),
        ),
        mood=_mood(event.verdict),
    )


def _rolled_back(event: RolledBack) -> Telling:
    return Telling(
        headline=f"rolled back to {event.to}: {event.reason}", mood="bad", mends=(event.mend,)
    )


def _held(event: RolloutHeld) -> Telling:
    return Telling(headline=f"rollout held: {event.reason}", mood="bad", mends=(event.mend,))


def _completed(event: RolloutCompleted) -> Telling:
    return Telling(headline=f"rollout completed: {event.adapter_id} replaces {event.replaced}")


def _step_failed(event: StepFailed) -> Telling:
    return Telling(
        headline=f"{event.step} failed: {event.error}",
        details=(event.message,),
        mood="bad",
        mends=(event.mend,),
    )


_TELLERS: dict[type[Event], Callable[[Any], Telling]] = {
    RunAccepted: _accepted,
    RunRejected: _rejected,
    RunCancelled: _cancelled,
    TrainingAdvised: _advised,
    DiagnosisConcluded: _concluded,
    TrainingDeclined: _declined,
    DiagnosisHalted: _halted,
    TrainingVetoed: _vetoed,
    DecisionReopened: _reopened,
    CurationHalted: _halted,
    RecalibrationRequired: _recalibration,
    SynthesisRequested: _synthesis_requested,
    RowsSynthesized: _synthesized,
    DatasetCurated: _curated,
    TrainingStarted: _training_started,
    AdapterTrained: _trained,
    TrainingStopped: _training_stopped,
    GateJudged: _gate,
    **registry.TELLERS,
    StageStarted: _stage_started,
    StageJudged: _stage_judged,
    RolledBack: _rolled_back,
    RolloutHeld: _held,
    RolloutCompleted: _completed,
    StepFailed: _step_failed,
}
