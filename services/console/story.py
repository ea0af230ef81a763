"""A run as a story: where it stands on the rail, what stopped it, what a person may do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from contracts.base import Problem
from contracts.curation import CurationHalted, RecalibrationRequired
from contracts.diagnosis import (
    DecisionReopened,
    DiagnosisConcluded,
    DiagnosisHalted,
    RunCancelled,
    RunRejected,
    TrainingDeclined,
    TrainingVetoed,
)
from contracts.evaluation import GateJudged
from contracts.fault import StepFailed
from contracts.registry import AdapterPromoted, AdapterWithdrawn, RegistrationRefused
from contracts.rollout import RolledBack, RolloutHeld
from contracts.run import Run
from contracts.training import TrainingStopped

StageName = Literal[
    "diagnosis",
    "curation",
    "synthesis",
    "training",
    "gates",
    "registry",
    "shadow",
    "canary",
    "promoted",
]
StageState = Literal["done", "active", "waiting", "skipped", "stopped", "held"]
Verb = Literal["cancel", "retry", "approve", "hold", "rollback"]

_ENDED_BY_DIAGNOSIS = frozenset({"declined", "diagnosed"})

RAIL: tuple[StageName, ...] = (
    "diagnosis",
    "curation",
    "synthesis",
    "training",
    "gates",
    "registry",
    "shadow",
    "canary",
    "promoted",
)


@dataclass(frozen=True, slots=True)
class RailStage:
    """One stage of the rail."""

    name: StageName
    state: StageState
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Ending:
    """Why the run stands still, and what mends it."""

    title: str
    message: str
    mend: str = ""
    problems: tuple[Problem, ...] = ()
    good: bool = False


def rail(run: Run) -> tuple[RailStage, ...]:
    """Every stage with its state, in order."""
    done = _done(run)
    skipped = _skipped(run)
    here = current_stage(run)
    stages = []
    for name in RAIL:
        state: StageState = "waiting"
        if name in done:
            state = "done"
        elif name in skipped:
            state = "skipped"
        elif name == here:
            state = _state_here(run)
        stages.append(RailStage(name, state, _detail(run, name)))
    return tuple(stages)


def current_stage(run: Run) -> StageName:
    """Where the run is, or where it stopped."""
    if run.status in _ENDED_BY_DIAGNOSIS:
        return "diagnosis"
    done = _done(run)
    if run.synthesis_requested and not run.synthesized:
        return "synthesis"
    passed = done | (_skipped(run) if not run.closed else {"synthesis"})
    return next((name for name in RAIL if name not in passed), "promoted")


def ending(run: Run) -> Ending | None:
    """What the last decisive fact says, if the run is not under way."""
    if run.status == "active":
        return None
    for record in reversed(run.log):
        found = _ending_of(record.event)
        if found is not None:
            return found
    return None


def verbs(run: Run) -> tuple[Verb, ...]:
    """The commands that make sense now."""
    if run.closed:
        final = {"promoted", "withdrawn", *_ENDED_BY_DIAGNOSIS}
        return ("retry",) if run.job and run.status not in final else ()
    if run.registered is None:
        return ("cancel",)
    if _awaits_approval(run):
        return ("approve", "rollback", "cancel")
    return ("hold", "rollback", "cancel") if run.stage else ("cancel",)


def _done(run: Run) -> set[StageName]:
    judged = {(s.stage, s.percent) for s in run.stages_judged if s.verdict == "passed"}
    facts: dict[StageName, bool] = {
        "diagnosis": run.advised is not None or run.status in _ENDED_BY_DIAGNOSIS,
        "curation": run.dataset is not None,
        "synthesis": run.synthesized is not None,
        "training": run.trained is not None,
        "gates": run.required_gates_passed(),
        "registry": run.registered is not None,
        "shadow": ("shadow", 0) in judged,
        "canary": ("canary", 100) in judged,
        "promoted": run.promoted is not None,
    }
    return {name for name, happened in facts.items() if happened}


def _skipped(run: Run) -> set[StageName]:
    if run.status in _ENDED_BY_DIAGNOSIS:
        return set(RAIL) - {"diagnosis"}
    unasked = run.job is not None and run.job.synthesis is None and run.asked_teacher is None
    without_synthesis = unasked or run.dataset
    return {"synthesis"} if without_synthesis else set()


def _state_here(run: Run) -> StageState:
    if run.status == "held":
        return "held"
    return "stopped" if run.closed else "active"


def _detail(run: Run, name: StageName) -> str:
    if name == "gates" and run.gates and run.job:
        passed = sum(g.verdict == "passed" for g in run.gates.values())
        return f"{passed} of {len(run.job.gates.required)}"
    if name == "canary" and run.stage and run.stage.stage == "canary":
        return f"{run.stage.percent} %"
    if name == "curation" and run.dataset:
        return f"{run.dataset.rows.get('train', 0)} rows"
    if name == "training" and run.trained:
        return f"{run.trained.steps} steps"
    if name == "diagnosis" and run.advised:
        return run.advised.choice.method
    return ""


def _awaits_approval(run: Run) -> bool:
    if run.status == "held":
        return True
    if run.job is None or run.job.rollout.approval != "manual" or run.registered is None:
        return False
    started = sum(r.event.fact == "stage_started" for r in run.log)
    judged = sum(r.event.fact == "stage_judged" for r in run.log)
    return started <= judged


def _ending_of(event: object) -> Ending | None:
    match event:
        case RunRejected(problems=problems):
            return Ending("The job was rejected", "Its inputs need mending.", problems=problems)
        case RunCancelled(reason=reason):
            return Ending("Cancelled", reason or "A user cancelled the run.")
        case DiagnosisConcluded(choice=choice):
            return Ending(
                "Diagnosis concluded",
                f"No lighter rung reaches the target: {choice.method} would train.",
                "Submit the job without stop_after to train.",
                good=True,
            )
        case TrainingDeclined(rung=rung):
            name = rung.replace("_", " ")
            return Ending(
                "No training needed",
                f"A lighter rung reaches the target: {name}.",
                f"Use {name}; the signed certificate holds the numbers.",
                good=True,
            )
        case TrainingVetoed(problems=problems):
            return Ending("Training does not pay", "Nothing was trained.", problems=problems)
        case DecisionReopened(reason=reason):
            return Ending("The decision is open again", reason, "Retry the run to ask anew.")
        case DiagnosisHalted(reason=reason, problems=problems):
            title = f"Diagnosis halted: {reason.replace('_', ' ')}"
            return Ending(title, "Training was not considered.", problems=problems)
        case CurationHalted(reason=reason, problems=problems):
            title = f"Curation halted: {reason.replace('_', ' ')}"
            return Ending(title, "The data must not be trained on.", problems=problems)
        case RecalibrationRequired(problems=problems):
            title = "Curation halted: raters agree too little"
            return Ending(title, "The rubric wants recalibration.", problems=problems)
        case TrainingStopped(reason=reason, message=message, mend=mend, step=step):
            title = f"Training stopped at step {step}: {reason.replace('_', ' ')}"
            return Ending(title, message, mend)
        case GateJudged(verdict="failed" | "inconclusive" as verdict, gate=gate):
            mend = "" if event.remediation == "none" else event.remediation.replace("_", " ")
            return Ending(f"{gate} {verdict}", event.summary, mend and f"Remediation: {mend}.")
        case RegistrationRefused(reason=reason, mend=mend):
            return Ending("Registration refused", reason, mend)
        case RolledBack(to=to, reason=reason, mend=mend):
            return Ending(f"Rolled back to {to}", reason, mend)
        case RolloutHeld(reason=reason, mend=mend):
            return Ending("The rollout is held", reason, mend)
        case StepFailed(step=step, error=error, message=message, mend=mend):
            return Ending(f"{step} failed: {error}", message, mend)
        case AdapterWithdrawn(adapter_id=adapter, to=to, kind=kind, reason=reason):
            title = f"Withdrawn ({kind.replace('_', ' ')}): {adapter}"
            return Ending(title, reason, f"{event.deployment} answers from {to}.")
        case AdapterPromoted(adapter_id=adapter, deployment=deployment):
            return Ending("Promoted", f"{adapter} answers for {deployment}.", good=True)
        case _:
            return None
