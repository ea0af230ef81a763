"""One sentence for each fact of the run log."""

from __future__ import annotations

from contracts.base import Event
from contracts.curation import (
    CurationHalted,
    DatasetCurated,
    RecalibrationRequired,
    SynthesisRequested,
)
from contracts.diagnosis import (
    DecisionReopened,
    DiagnosisConcluded,
    DiagnosisHalted,
    RunAccepted,
    RunCancelled,
    RunRejected,
    TrainingAdvised,
    TrainingDeclined,
    TrainingVetoed,
)
from contracts.evaluation import GateJudged
from contracts.fault import StepFailed
from contracts.registry import (
    AdapterPromoted,
    CandidateRegistered,
    RegistrationRefused,
    VerdictAttested,
)
from contracts.rollout import RolledBack, RolloutCompleted, RolloutHeld, StageJudged, StageStarted
from contracts.synthesis import RowsSynthesized
from contracts.training import AdapterTrained, TrainingStarted, TrainingStopped


def sentence(event: Event) -> str:
    """What happened, for a person."""
    match event:
        case RunAccepted(attempt=attempt):
            return f"Job accepted, attempt {attempt}; its inputs are pinned by digest."
        case RunRejected(problems=problems):
            return f"Job rejected: {len(problems)} problem(s)."
        case RunCancelled(reason=reason):
            return f"Cancelled{': ' + reason if reason else ''}."
        case TrainingAdvised(choice=choice):
            return f"Training advised by {choice.method}: {choice.reason}."
        case DiagnosisConcluded(choice=choice):
            return f"Diagnosis concluded: {choice.method} would train."
        case TrainingDeclined(rung=rung):
            return f"Training declined: {rung.replace('_', ' ')} reaches the target."
        case TrainingVetoed(problems=problems):
            return f"Training vetoed: {problems[0].problem}."
        case DecisionReopened(reason=reason):
            return f"The decision is open again: {reason}."
        case DiagnosisHalted(reason=reason) | CurationHalted(reason=reason):
            return f"Halted: {reason.replace('_', ' ')}."
        case RecalibrationRequired(lines=lines):
            return f"Halted: raters agree too little on {lines[0].line!r}."
        case SynthesisRequested(rows=rows):
            return f"Asked for {rows} synthetic rows."
        case RowsSynthesized(accepted=accepted, requested=requested):
            return f"{accepted} of {requested} synthetic rows accepted."
        case DatasetCurated(rows=rows):
            return "Dataset curated: " + ", ".join(f"{n} {name}" for name, n in rows.items()) + "."
        case TrainingStarted(steps=steps):
            return f"Training started: {steps} steps."
        case AdapterTrained(steps=steps, train_loss=loss, duration_s=duration):
            return f"Adapter trained: {steps} steps in {duration:.0f} s, loss {loss:.3f}."
        case TrainingStopped(reason=reason, message=message):
            return f"Training stopped ({reason.replace('_', ' ')}): {message}"
        case GateJudged(gate=gate, verdict=verdict, summary=summary):
            return f"{gate} {verdict}: {summary}"
        case CandidateRegistered(adapter_id=adapter):
            return f"Candidate registered as {adapter}; its card is signed."
        case VerdictAttested(name=name, index=index):
            return f"{name} attested: link {index} of the chain is signed."
        case RegistrationRefused(reason=reason):
            return f"Registration refused: {reason}"
        case StageStarted():
            return f"{event.label.capitalize()} started on {event.deployment}."
        case StageJudged(verdict=verdict, summary=summary):
            return f"{event.stage.capitalize()} {event.percent} % {verdict}: {summary}"
        case RolledBack(to=to, reason=reason):
            return f"Rolled back to {to}: {reason}"
        case RolloutHeld(reason=reason):
            return f"Rollout held: {reason}"
        case RolloutCompleted(deployment=deployment):
            return f"Every stage passed on {deployment}."
        case AdapterPromoted(adapter_id=adapter, deployment=deployment):
            return f"{adapter} promoted: it answers for {deployment}."
        case StepFailed(step=step, error=error, message=message):
            return f"{step} failed: {error}: {message}"
        case _:
            return event.fact.replace("_", " ")
