"""Commands: what users ask of a run, in the imperative. `submit` carries an `AdaptationJob`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from contracts.base import Frozen

WithdrawalKind = Literal["retired", "revoked", "safety_override"]
"""Of its own time; because its data or card may no longer be trusted; because it does harm."""


class Cancel(Frozen):
    """Stop at the next safe point; training keeps its checkpoint."""

    reason: str = ""


class Retry(Frozen):
    """Start another attempt. Work already done is found by its content and not repeated."""


class Approve(Frozen):
    """Let a rollout with `approval: manual` take its next stage."""


class Withdraw(Frozen):
    """Take a registered adapter out of service at once, whatever its rollout says (R5, H11)."""

    kind: WithdrawalKind = "retired"
    reason: str = Field(min_length=1, max_length=2000)


class Reconsider(Frozen):
    """News of the market or the field that a run's decision may hang on (E2).

    Give what has changed. The decision is looked at again, and re-opened where it no longer holds.
    """

    reason: str = Field(default="", max_length=2000)
    price_per_mtok: float | None = Field(default=None, ge=0)
    """Of the student, or of the lighter rung that answers instead."""
    teacher_price_per_mtok: float | None = Field(default=None, ge=0)
    monthly_requests: int | None = Field(default=None, ge=0)
    tokens_per_request: float | None = Field(default=None, gt=0)
    fallback_rate: float | None = Field(default=None, ge=0, le=1)
    latency_ms: float | None = Field(default=None, ge=0)
    """Median, of the rung that suffices."""
    success: float | None = Field(default=None, ge=0, le=1)
    """Measured, of the rung that suffices."""

    @model_validator(mode="after")
    def _says_something(self) -> Reconsider:
        if not self.news:
            raise ValueError("give at least one number that has changed")
        return self

    @property
    def news(self) -> dict[str, float]:
        """Name → value of every number given."""
        return {
            name: value
            for name, value in self.model_dump(exclude={"reason"}).items()
            if value is not None
        }
