"""The smallest true difference a sample finds, and the sample a difference needs."""

from __future__ import annotations

import math

from shared.statistics.normal import one_sided_z, two_sided_z

POWER = 0.80


def detectable_paired(
    n: int, discordance: float, *, level: float = 0.95, power: float = POWER, sides: int = 2
) -> float:
    """The smallest paired difference of proportions that `n` items find.

    `discordance` is the share of items on which the two models disagree. Normal approximation of
    McNemar's test with the null's variance (Connor 1987): δ = (z_α + z_β)·√(discordance / n). The
    same figure is the margin at which a non-inferiority test of truly equal models (`sides=1`) has
    this power. Never above 1.
    """
    if n == 0:
        return 1.0
    return min(1.0, _reach(level, power, sides) * math.sqrt(discordance / n))


def items_for_paired(
    difference: float,
    discordance: float,
    *,
    level: float = 0.95,
    power: float = POWER,
    sides: int = 2,
) -> int:
    """Items that `detectable_paired` needs to reach `difference`."""
    return math.ceil((_reach(level, power, sides) / difference) ** 2 * discordance)


def detectable_two_sample(
    n_baseline: int, n_candidate: int, rate: float, *, level: float = 0.95, power: float = POWER
) -> float:
    """The smallest drop or rise from `rate` that two independent samples find, two-sided.

    Solves δ = z_α·√(p̄q̄(1/n₁ + 1/n₂)) + z_β·√(p₁q₁/n₁ + p₂q₂/n₂) (Fleiss 1981, eq. 3.14) in the
    direction that has more room.
    """
    if not n_baseline or not n_candidate:
        return 1.0
    sign = -1.0 if rate >= 0.5 else 1.0
    room = rate if rate >= 0.5 else 1.0 - rate
    z_alpha, z_beta = two_sided_z(level), one_sided_z(power)

    def needed(delta: float) -> float:
        other = rate + sign * delta
        pooled = (rate * n_baseline + other * n_candidate) / (n_baseline + n_candidate)
        null = math.sqrt(pooled * (1 - pooled) * (1 / n_baseline + 1 / n_candidate))
        real = math.sqrt(rate * (1 - rate) / n_baseline + other * (1 - other) / n_candidate)
        return z_alpha * null + z_beta * real

    low, high = 0.0, room
    if needed(high) > high:
        return 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if needed(middle) > middle else (low, middle)
    return high


def _reach(level: float, power: float, sides: int) -> float:
    z_alpha = two_sided_z(level) if sides == 2 else one_sided_z(level)
    return z_alpha + one_sided_z(power)
