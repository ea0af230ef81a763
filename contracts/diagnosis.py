"""Diagnosis: should we adapt at all? Facts about intake and the ladder's measured rungs."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from contracts.base import Digest, Event, Frozen, Problem, Service
from contracts.job import AdaptationJob, MethodName
from contracts.measure import Comparison, Measurement

RungName = Literal[
    "prompt_revision",
    "few_shot",
    "harness_changes",
    "structured_outputs",
    "validators",
    "retrieval",
    "memory",
    "tools",
    "routing",
    "model_selection",
    "sft",
    "lora",
    "preference_tuning",
    "distillation",
    "no_adaptation",
]


class RungResult(Frozen):
    """One rung of the ladder as measured on the dev set, paired with the frozen base."""

    rung: RungName
    success: Measurement
    against_base: Comparison
    added_prompt_tokens: float
    """Mean prompt tokens per request above the base prompt."""
    latency_ms: float
    """Median end-to-end latency per request."""
    reaches_target: bool


class RungSkipped(Frozen):
    """A rung that was not run, and why."""

    rung: RungName
    reason: str


class MethodChoice(Frozen):
    """The method that will train, and why not the others (D6)."""

    method: MethodName
    reason: str
    rejected: dict[str, str] = Field(default_factory=dict)


class Diagnosis(Frozen):
    """The measured answer: what the base does, and what each lighter rung adds."""

    base: Measurement
    target: float
    rungs: tuple[RungResult, ...]
    skipped: tuple[RungSkipped, ...] = ()
    notes: tuple[str, ...] = ()


class RunAccepted(Event):
    """The job is valid and its inputs are pinned: `job` names data by digest from here on."""

    service: ClassVar[Service] = Service.DIAGNOSIS
    fact: ClassVar[str] = "accepted"
    job: AdaptationJob
    job_digest: Digest
    attempt: int = Field(default=1, ge=1)


class RunRejected(Event):
    """The job cannot start; every problem is named with its mend."""

    service: ClassVar[Service] = Service.DIAGNOSIS
    fact: ClassVar[str] = "rejected"
    problems: tuple[Problem, ...]


class RunCancelled(Event):
    """A user cancelled the run. Services stop at their next safe point."""

    service: ClassVar[Service] = Service.DIAGNOSIS
    fact: ClassVar[str] = "cancelled"
    reason: str = ""


class TrainingAdvised(Event):
    """No lighter rung reaches the target: train."""

    service: ClassVar[Service] = Service.DIAGNOSIS
    fact: ClassVar[str] = "train_advised"
    diagnosis: Diagnosis
    choice: MethodChoice


class TrainingDeclined(Event):
    """A lighter rung suffices: the run ends with a signed do-not-train certificate."""

    service: ClassVar[Service] = Service.DIAGNOSIS
    fact: ClassVar[str] = "train_declined"
    diagnosis: Diagnosis
    rung: RungName
    certificate: Digest
    """The DSSE envelope in the artifact store."""


class DiagnosisHalted(Event):
    """The question cannot be answered (evaluation gap), or must not be (volatile facts)."""

    service: ClassVar[Service] = Service.DIAGNOSIS
    fact: ClassVar[str] = "halted"
    reason: Literal["evaluation_gap", "volatile_facts", "data_preflight", "memory_preflight"]
    problems: tuple[Problem, ...]
