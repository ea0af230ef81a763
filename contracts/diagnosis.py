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


class Usage(Frozen):
    """What one way of answering costs: means per item, over the dev set."""

    requests: float
    prompt_tokens: float
    completion_tokens: float
    latency_ms: float
    """Median, end to end, of all requests of an item; measured while other items are asked."""
    tokens_per_success: float | None = None
    """Prompt and completion tokens of all items over the items that succeed; None if none does."""
    cost_per_success: float | None = None
    """In the currency of the job's prices; None without a price or a success."""


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
    added_completion_tokens: float = 0.0
    """Mean completion tokens per item above the base's; tokens of retries count here too."""
    added_latency_ms: float = 0.0
    """Median latency above the base's."""
    usage: Usage | None = None
    variant: str = ""
    """Of several ways of taking this rung, the best on all dev items: the one to deploy."""
    variants: int = Field(default=1, ge=1)
    """How many ways were tried. Of several, each item is answered by the way that did best on the
    other folds, so that choosing does not flatter `success`."""


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
    base_usage: Usage | None = None


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
    job: AdaptationJob | None = None
    """The job, where the document is one: what a decision is re-opened on."""


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


class DiagnosisConcluded(Event):
    """No lighter rung reaches the target, and the job asked for no more than the diagnosis."""

    service: ClassVar[Service] = Service.DIAGNOSIS
    fact: ClassVar[str] = "concluded"
    diagnosis: Diagnosis
    choice: MethodChoice
    """The method that would train."""


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
    diagnosis: Diagnosis | None = None
    """What was measured, where a preflight spoke after the measuring."""


class DecisionReopened(Event):
    """A condition the decision hangs on has changed (D4, E2). What follows is the next fact."""

    service: ClassVar[Service] = Service.DIAGNOSIS
    fact: ClassVar[str] = "reopened"
    reason: str
    """Which condition, and the numbers before and after."""
    news: dict[str, float]
    """What was reported to have changed."""
