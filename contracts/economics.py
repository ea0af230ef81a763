"""The ledger of a distillation: what it costs once, and what each token costs before and after."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from contracts.base import Frozen

MTOK = 1_000_000


Quantity = Literal[
    "price_per_mtok",
    "teacher_price_per_mtok",
    "monthly_requests",
    "fallback_rate",
    "success",
    "latency_ms",
]
"""What the world may change after a decision not to train: prices, traffic, the teacher's share of
a student's requests, and the quality and latency of the lighter rung in use."""


class Condition(Frozen):
    """A decision holds while `quantity` stays within its bounds."""

    quantity: Quantity
    below: float | None = None
    """Re-opened by a value below this."""
    above: float | None = None
    """Re-opened by a value above this."""

    @property
    def in_words(self) -> str:
        """`price_per_mtok goes above 2.4`."""
        bounds = {"below": self.below, "above": self.above}
        said = [f"{side} {bound:g}" for side, bound in bounds.items() if bound is not None]
        return f"{self.quantity} goes {' or '.join(said)}"

    def broken(self, value: float) -> bool:
        return (self.below is not None and value < self.below) or (
            self.above is not None and value > self.above
        )


class OneOffCosts(Frozen):
    """Spent once, whatever the volume. In the ledger's currency."""

    generation: float = Field(default=0.0, ge=0)
    """Teacher tokens of the training data."""
    training: float = Field(default=0.0, ge=0)
    evaluation: float = Field(default=0.0, ge=0)
    infrastructure: float = Field(default=0.0, ge=0)

    @property
    def total(self) -> float:
        return self.generation + self.training + self.evaluation + self.infrastructure


class Ledger(Frozen):
    """`sluice economics` reads it; a job's `economics` is one without its words."""

    schema_: Literal["sluice.ledger/v1"] = Field(default="sluice.ledger/v1", alias="schema")
    currency: str = "USD"
    one_off: OneOffCosts
    teacher_price_per_mtok: float = Field(ge=0)
    """For a million tokens, read and written alike."""
    student_price_per_mtok: float = Field(ge=0)
    fallback_rate: float = Field(default=0.0, ge=0, le=1)
    """Share of the student's requests that the teacher has to answer after it."""
    tokens_per_request: float = Field(gt=0)
    monthly_requests: float | None = Field(default=None, ge=0)
    """Projected; None: not known, so there is no verdict on time."""
    horizon_months: float = Field(default=12.0, gt=0)
    """The student has to have paid for itself by then."""
    claimed_break_even_tokens: float | None = Field(default=None, ge=0)
    """A figure to be checked against these numbers."""


class Pilot(Frozen):
    """One small distillation that was run to its end."""

    parameters: float = Field(gt=0)
    """Of the student."""
    tokens: float = Field(gt=0)
    """It was distilled on."""
    teacher_loss: float | None = Field(default=None, gt=0)
    """Cross-entropy of its teacher on the evaluation set."""
    loss: float = Field(gt=0)
    """Cross-entropy of the student on the same set."""


class PilotTarget(Frozen):
    """The student whose loss is asked for."""

    parameters: float = Field(gt=0)
    tokens: float = Field(gt=0)


class Pilots(Frozen):
    """`sluice scaling` reads it."""

    schema_: Literal["sluice.pilots/v1"] = Field(default="sluice.pilots/v1", alias="schema")
    runs: tuple[Pilot, ...] = Field(min_length=1)
    target: PilotTarget | None = None
