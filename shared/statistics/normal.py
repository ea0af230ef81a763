"""Quantiles of the standard normal distribution."""

from __future__ import annotations

from statistics import NormalDist

_STANDARD = NormalDist()


def two_sided_z(level: float) -> float:
    """The z that a two-sided interval of confidence `level` reaches to (0.95 → 1.96)."""
    return _STANDARD.inv_cdf(0.5 + level / 2)


def one_sided_z(level: float) -> float:
    """The quantile at `level` (0.95 → 1.645)."""
    return _STANDARD.inv_cdf(level)


def upper_tail(z: float) -> float:
    """P(Z > z)."""
    return _STANDARD.cdf(-z)
