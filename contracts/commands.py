"""Commands: what users ask of a run, in the imperative. `submit` carries an `AdaptationJob`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from contracts.base import Frozen
from contracts.economics import Quantity

WithdrawalKind = Literal["retired", "revoked", "safety_override"]
"""Of its own time; because its data or card may no longer be trusted; because it does harm."""


class Cancel(Frozen):
    """Stop at the next safe point; training keeps its checkpoint."""

    reason: str = ""


class Retry(Frozen):
    """Start another attempt. Work already done is found by its content and not repeated."""


class Approve(Frozen):
    """Let a rollout with `approval: manual` take its next stage."""


class Observe(Frozen):
    """Tell a run that ended without training what has changed since; it may be re-opened (D4, E2).

    Any meter may publish it: a price list, a billing system, a monitor.
    """

    quantity: Quantity
    value: float = Field(ge=0, allow_inf_nan=False)
    source: str = Field(default="", max_length=200)
    """Who measured it."""


class Hold(Frozen):
    """Keep a rollout at its present share until `approve`; evidence of harm still ends it."""

    reason: str = Field(default="", max_length=2000)


class Rollback(Frozen):
    """End a rollout: the deployment answers as before, and the candidate serves nothing."""

    reason: str = Field(default="", max_length=2000)


class Withdraw(Frozen):
    """Take a registered adapter out of service at once, whatever its rollout says (R5, H11)."""

    kind: WithdrawalKind = "retired"
    reason: str = Field(min_length=1, max_length=2000)
