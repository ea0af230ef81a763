"""Evaluation: each gate states its verdict with numbers, intervals and sample sizes."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from contracts.base import Digest, Event, Frozen, Service
from contracts.job import GateId
from contracts.measure import Comparison, Measurement, VerdictName

Remediation = Literal[
    "none",
    "repair_registry",
    "retrain",
    "rescope",
    "enable_constraints",
    "lower_rank",
    "add_rehearsal",
    "safety_review",
    "redact",
    "deduplicate",
    "more_items",
    "safety_review",
    "redact",
    "vary_prompts",
]


class ChangedExample(Frozen):
    """An item whose verdict changed between base and candidate, worst first."""

    item: str
    base: float
    candidate: float
    output: str


class GateJudged(Event):
    """One gate's verdict on one candidate."""

    service: ClassVar[Service] = Service.EVALUATION
    fact: ClassVar[str] = "gate_judged"
    gate: GateId
    candidate: Digest
    verdict: VerdictName
    summary: str
    """One sentence a person can act on."""
    measurements: tuple[Measurement, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    changed: tuple[ChangedExample, ...] = ()
    remediation: Remediation = "none"
    evidence: Digest | None = None
    """JSON Lines of every item and answer behind the verdict."""
    duration_s: float = Field(ge=0)

    def token(self) -> str:
        return f"{self.gate.lower()}_judged"
