"""Every event type there is, by its CloudEvents type."""

from __future__ import annotations

from contracts import curation, diagnosis, evaluation, fault, registry, rollout, synthesis, training
from contracts.base import Event

EVENTS: dict[str, type[Event]] = {
    event.type_name(): event
    for event in (
        diagnosis.RunAccepted,
        diagnosis.RunRejected,
        diagnosis.RunCancelled,
        diagnosis.TrainingAdvised,
        diagnosis.DiagnosisConcluded,
        diagnosis.TrainingDeclined,
        diagnosis.DiagnosisHalted,
        diagnosis.TrainingVetoed,
        diagnosis.DecisionReopened,
        curation.SynthesisRequested,
        curation.DatasetCurated,
        curation.CurationHalted,
        curation.RecalibrationRequired,
        synthesis.RowsSynthesized,
        training.TrainingStarted,
        training.AdapterTrained,
        training.TrainingStopped,
        evaluation.GateJudged,
        registry.CandidateRegistered,
        registry.VerdictAttested,
        registry.RegistrationRefused,
        registry.AdapterPromoted,
        registry.AdapterWithdrawn,
        rollout.StageStarted,
        rollout.StageJudged,
        rollout.RolledBack,
        rollout.RolloutHeld,
        rollout.RolloutCompleted,
        fault.StepFailed,
    )
}
