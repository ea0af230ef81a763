"""Run health: the signs that a run is lost, and the name each one gets (T3).

A check sees the numbers of a step *before* the optimizer applies it, so the weights, and the
checkpoints made of them, stay those of the last good step.
"""

from __future__ import annotations

import math
from collections import deque
from statistics import median

from contracts.training import StopReason

EXPLOSION_NORM = 1e4
"""A gradient norm, before clipping, that is an explosion at any time."""
EXPLOSION_RATIO = 1e3
"""...or against the median of the steps before it."""
WINDOW = 20
MINIMUM_HISTORY = 5


class RunStopped(Exception):
    """Training must end now; carries the named reason."""

    def __init__(self, reason: StopReason, message: str, mend: str) -> None:
        super().__init__(message)
        self.reason: StopReason = reason
        self.message = message
        self.mend = mend


class RunHealth:
    """The recent gradient norms of one run."""

    def __init__(self) -> None:
        self._norms: deque[float] = deque(maxlen=WINDOW)

    def check_loss(self, step: int, loss: float) -> None:
        """Raises RunStopped if `loss` is not a finite number."""
        if not math.isfinite(loss):
            raise RunStopped(
                "not_a_number",
                f"the loss of step {step} is {loss}",
                "lower method.train.learning_rate, and look for broken rows in the data",
            )

    def check_gradient(self, step: int, norm: float) -> None:
        """Raises RunStopped if the gradient norm (before clipping) is not one a run survives."""
        if math.isnan(norm):
            raise RunStopped(
                "not_a_number",
                f"the gradient of step {step} is not a number",
                "lower method.train.learning_rate",
            )
        usual = median(self._norms) if len(self._norms) >= MINIMUM_HISTORY else math.inf
        if norm > EXPLOSION_NORM or norm > EXPLOSION_RATIO * usual:
            raise RunStopped(
                "gradient_explosion",
                f"the gradient norm of step {step} is {norm:.3g}"
                + (f", usually {usual:.3g}" if math.isfinite(usual) else ""),
                "lower method.train.learning_rate or raise method.train.warmup_share",
            )
        self._norms.append(norm)
