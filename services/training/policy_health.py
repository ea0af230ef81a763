"""The health of a policy that learns from a reward: collapse, and rewards that are not earned (T3).

A reward model is right near the answers it was taught on. A policy that gains reward by leaving
them (Gao et al., 2022, arXiv:2210.10760) has found its errors, not better answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from contracts.preference import PpoParameters
from services.training.health import RunStopped

WINDOW = 3
"""Steps whose mean is judged, against the mean of as many at the beginning."""
REWARD_RISE = 0.25
"""What counts as up, in standard deviations of the reward over the training answers."""
COLLAPSED_SHARE = 0.02
"""Entropy, against the base's at the same tokens, below which a policy has collapsed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyStep:
    """One step's answers, before the policy learned from them."""

    reward: float
    kl: float
    """Nats per answer."""
    entropy: float
    """Nats per token."""
    reference_entropy: float
    """The base's, at the same tokens."""
    answer_tokens: float


class PolicyHealth:
    """The steps of one run so far."""

    def __init__(self, limits: PpoParameters, history: Sequence[PolicyStep] = ()) -> None:
        self._limits = limits
        self.history = list(history)

    def check(self, step: int, seen: PolicyStep) -> None:
        """Raises RunStopped: `policy_collapse` or `reward_hacking`."""
        self.history.append(seen)
        if len(self.history) < 2 * WINDOW:
            return
        first, now = self.history[:WINDOW], self.history[-WINDOW:]
        self._check_entropy(step, now)
        self._check_reach(step, first, now)

    def _check_entropy(self, step: int, now: Sequence[PolicyStep]) -> None:
        left, base = fmean(s.entropy for s in now), fmean(s.reference_entropy for s in now)
        if left < COLLAPSED_SHARE * base:
            raise RunStopped(
                "policy_collapse",
                f"at step {step} the policy's entropy is {left:.2g} nats per token, "
                f"the base's {base:.2g}: it says one thing whatever it is asked",
                "raise method.preference.beta or lower method.train.learning_rate",
            )

    def _check_reach(
        self, step: int, first: Sequence[PolicyStep], now: Sequence[PolicyStep]
    ) -> None:
        kl, limit = fmean(s.kl for s in now), self._limits.maximum_kl
        ratio = fmean(s.answer_tokens for s in now) / fmean(s.answer_tokens for s in first)
        rise = fmean(s.reward for s in now) - fmean(s.reward for s in first)
        widest = self._limits.maximum_length_ratio
        off = []
        if kl > limit:
            off.append(f"it is {kl:.1f} nats per answer from the base (at most {limit:g})")
        if not 1 / widest <= ratio <= widest:
            off.append(f"its answers are {ratio:.2g} times as long as at first")
        if not off:
            return
        mend = "raise method.preference.beta, lower method.train.learning_rate, or take more pairs"
        said = " and ".join(off)
        if rise > REWARD_RISE:
            raise RunStopped(
                "reward_hacking", f"at step {step} the reward is up by {rise:.2f}, but {said}", mend
            )
        if kl > limit:
            raise RunStopped(
                "policy_collapse", f"at step {step} the reward has not risen, but {said}", mend
            )
