"""What a candidate is held to while it sees live traffic, and when a rate counts as evidence.

The rollout's error of 1 − level is shared among all stages and checks (Bonferroni).
"""

from __future__ import annotations

from dataclasses import dataclass

from contracts.job import AdaptationJob
from services.rollout.stage import Ratios
from shared.statistics import evidence_below

CHECKS = 9
"""Success, errors, schema, latency, cost, drift, refusals, overrides, decay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a candidate is held to while it sees live traffic."""

    minimum_success: float
    maximum_error_rate: float
    minimum_validity: float
    """Schema validity: what G4 admitted the candidate with."""
    maximum_latency_ratio: float
    maximum_decay: float
    """Success below the stable arm's by more than this, as a proportion."""
    maximum_cost_ratio: float = 1.5
    maximum_drift: float = 1.5
    maximum_refusal_increase: float = 0.05
    maximum_override_rate: float = 0.05
    level: float
    stages: int

    @classmethod
    def of(cls, job: AdaptationJob) -> Limits:
        policy = job.rollout
        return cls(
            minimum_success=policy.minimum_success,
            maximum_error_rate=policy.maximum_error_rate,
            minimum_validity=job.gates.minimum_validity,
            maximum_latency_ratio=policy.maximum_latency_ratio,
            maximum_decay=job.gates.maximum_decay,
            maximum_cost_ratio=policy.maximum_cost_ratio,
            maximum_drift=policy.maximum_drift,
            maximum_refusal_increase=policy.maximum_refusal_increase,
            maximum_override_rate=policy.maximum_override_rate,
            level=job.gates.level,
            stages=len(policy.stages) + 1,
        )

    @property
    def ratios(self) -> Ratios:
        return Ratios(
            latency=self.maximum_latency_ratio,
            cost=self.maximum_cost_ratio,
            drift=self.maximum_drift,
        )

    @property
    def check_error(self) -> float:
        """The error each check of each stage may spend."""
        return (1 - self.level) / (self.stages * CHECKS)

    @property
    def odds(self) -> float:
        """The e-value that counts as evidence."""
        return 1 / self.check_error


def rate_below(threshold: float, successes: int, n: int, odds: float) -> bool:
    """Evidence that a rate is below `threshold`. A limit of 1 is broken by one failure."""
    if threshold >= 1:
        return successes < n
    if successes >= threshold * n:  # every likelihood ratio is at most 1
        return False
    return evidence_below(threshold, successes, n) >= odds
