"""A run is the fold of its log. Nothing else holds its state."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

from contracts.base import Digest, Event
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
)
from contracts.distillation import DistillationParameters
from contracts.envelope import Recorded
from contracts.evaluation import GateJudged
from contracts.fault import StepFailed
from contracts.job import AdaptationJob, GateId, GatePolicy
from contracts.registry import (
    AdapterPromoted,
    AdapterWithdrawn,
    CandidateRegistered,
    RegistrationRefused,
    VerdictAttested,
)
from contracts.rollout import RolledBack, RolloutCompleted, RolloutHeld, StageJudged, StageStarted
from contracts.subjects import RunRef
from contracts.synthesis import RowsSynthesized
from contracts.training import AdapterTrained, TrainingStarted, TrainingStopped

Status = Literal[
    "active",
    "promoted",
    "declined",
    "diagnosed",
    "rejected",
    "halted",
    "failed",
    "rolled_back",
    "held",
    "cancelled",
    "withdrawn",
]
CLOSED: frozenset[Status] = frozenset(
    {
        "promoted",
        "declined",
        "diagnosed",
        "rejected",
        "halted",
        "failed",
        "rolled_back",
        "cancelled",
        "withdrawn",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What is known of a run after some prefix of its log."""

    ref: RunRef
    version: int = 0
    """Sequence of the newest event; 0 before the first. The compare-and-set token."""
    status: Status = "active"
    attempt: int = 0
    job: AdaptationJob | None = None
    job_digest: Digest | None = None
    diagnosis: Diagnosis | None = None
    reopened: tuple[DecisionReopened, ...] = ()
    """Why the decision not to train is open again; the next attempt takes account of it."""
    advised: TrainingAdvised | None = None
    synthesis_requested: SynthesisRequested | None = None
    synthesized: RowsSynthesized | None = None
    dataset: DatasetCurated | None = None
    trained: AdapterTrained | None = None
    gates: dict[GateId, GateJudged] = field(default_factory=dict)
    registered: CandidateRegistered | None = None
    stage: StageStarted | None = None
    stages_judged: tuple[StageJudged, ...] = ()
    promoted: AdapterPromoted | None = None
    log: tuple[Recorded, ...] = ()

    @property
    def closed(self) -> bool:
        """Whether no service will act on this run again without a retry."""
        return self.status in CLOSED

    @property
    def ids(self) -> frozenset[str]:
        return frozenset(record.id for record in self.log)

    @property
    def asked_teacher(self) -> DistillationParameters | None:
        """The run's distillation, where its teacher writes the rows that train."""
        if self.job is None or self.advised is None:
            return None
        return self.job.method.asked_teacher(self.advised.choice.method)

    def required_gates_passed(self) -> bool:
        """Whether every gate the job requires has passed on the present candidate."""
        if self.job is None:
            return False
        policy = self.job.gates
        verdicts = [(gate, self.gates.get(gate)) for gate in policy.required]
        return all(v is not None and policy.accepts(gate, v.verdict) for gate, v in verdicts)

    def apply(self, record: Recorded) -> Run:
        """The run after one more fact. Pure."""
        run = replace(self, version=record.seq, log=(*self.log, record))
        return _step(run, record.event)


def fold(ref: RunRef, records: Iterable[Recorded]) -> Run:
    """The run that `records`, in log order, describe."""
    run = Run(ref=ref)
    for record in records:
        run = run.apply(record)
    return run


def _step(run: Run, event: Event) -> Run:
    match event:
        case RunAccepted():
            return Run(
                ref=run.ref,
                version=run.version,
                log=run.log,
                job=event.job,
                job_digest=event.job_digest,
                attempt=event.attempt,
            )
        case RunRejected():
            return replace(run, status="rejected")
        case RunCancelled():
            return run if run.closed else replace(run, status="cancelled")
        case TrainingAdvised():
            return replace(run, advised=event, diagnosis=event.diagnosis)
        case TrainingDeclined():
            return replace(run, status="declined", diagnosis=event.diagnosis)
        case DiagnosisConcluded():
            return replace(run, status="diagnosed", diagnosis=event.diagnosis)
        case DiagnosisHalted():
            return replace(run, status="halted", diagnosis=event.diagnosis)
        case DecisionReopened():
            return replace(run, reopened=(*run.reopened, event))
        case CurationHalted() | RecalibrationRequired() | TrainingVetoed():
            return replace(run, status="halted")
        case SynthesisRequested():
            return replace(run, synthesis_requested=event)
        case RowsSynthesized():
            return replace(run, synthesized=event)
        case DatasetCurated():
            return replace(run, dataset=event)
        case TrainingStarted():
            return run
        case AdapterTrained():
            return replace(run, trained=event, gates={})
        case TrainingStopped() | RegistrationRefused() | StepFailed():
            return replace(run, status="failed")
        case GateJudged():
            run = replace(run, gates={**run.gates, event.gate: event})
            policy = run.job.gates if run.job else GatePolicy()
            accepted = policy.accepts(event.gate, event.verdict)
            return run if accepted else replace(run, status="failed")
        case CandidateRegistered():
            return replace(run, registered=event)
        case StageStarted():
            return replace(run, stage=event, status="active")
        case StageJudged():
            return replace(run, stages_judged=(*run.stages_judged, event))
        case RolledBack():
            return replace(run, status="rolled_back", stage=None)
        case RolloutHeld():
            return replace(run, status="held")
        case RolloutCompleted() | VerdictAttested():
            return run
        case AdapterPromoted():
            return replace(run, status="promoted", promoted=event)
        case AdapterWithdrawn():
            return replace(run, status="withdrawn", stage=None)
        case _:
            raise TypeError(f"no fold for {event.type_name()}")
