"""The signs that preference tuning has gone wrong, and the name each one gets (T3, ERRATA 7).

Both look at means over the last `WINDOW` batches, before the optimizer applies the newest one, so
that one odd batch stops nothing and the checkpoints stay those of good steps.
"""

from __future__ import annotations

from collections import deque

from services.training.health import RunStopped

WINDOW = 10
LOST_NATS = 10.0
"""Log-probability that chosen answers may lose against the base, whatever they had."""
SATURATED = 17.0
"""A scaled margin at which 1 - sigmoid is 0 in float32: nothing is left to learn from the pair."""


class LikelihoodDisplacement:
    """Chosen answers become unlikely while they still win: the mass goes to a third answer.

    Razin et al., 2024 (arXiv:2410.08847).
    """

    def __init__(self) -> None:
        self._recent: deque[tuple[float, float, float]] = deque(maxlen=WINDOW)

    def check(self, step: int, *, log_prob: float, base_log_prob: float, margin: float) -> None:
        """One batch's means: log-probability of chosen answers under adapter and base, and margin.

        Raises RunStopped where answers that win have lost over `LOST_NATS`, and their probability
        is below the square of the base's.
        """
        self._recent.append((log_prob, base_log_prob, margin))
        if len(self._recent) < WINDOW:
            return
        now, base, won = (sum(values) / WINDOW for values in zip(*self._recent, strict=True))
        if won > 0 and now < base - LOST_NATS and now < 2 * base:
            raise RunStopped(
                "likelihood_displacement",
                f"by step {step} the chosen answers fell from {base:.1f} to {now:.1f} nats",
                "raise method.preference.beta, lower method.train.learning_rate, or drop pairs "
                "whose two answers hardly differ",
            )


class LogitSaturation:
    """The margins are so wide that the sigmoid has no gradient left."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=WINDOW)

    def check(self, step: int, margin: float) -> None:
        """One batch's mean of beta h. Raises RunStopped where it stays beyond `SATURATED`."""
        self._recent.append(margin)
        mean = sum(self._recent) / len(self._recent)
        if len(self._recent) == WINDOW and abs(mean) > SATURATED:
            raise RunStopped(
                "logit_saturation",
                f"by step {step} the mean margin is {mean:.1f}; beyond {SATURATED:.0f} the loss "
                "has no gradient",
                "take fewer steps, lower method.train.learning_rate or method.preference.beta, "
                "or use method.preference.objective ipo, whose margin is bounded",
            )
