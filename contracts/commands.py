"""Commands: what users ask of a run, in the imperative. `submit` carries an `AdaptationJob`."""

from __future__ import annotations

from contracts.base import Frozen


class Cancel(Frozen):
    """Stop at the next safe point; training keeps its checkpoint."""

    reason: str = ""


class Retry(Frozen):
    """Start another attempt. Work already done is found by its content and not repeated."""


class Approve(Frozen):
    """Let a rollout with `approval: manual` take its next stage."""
