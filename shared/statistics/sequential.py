"""Evidence that may be looked at after every outcome.

A fixed-sample test that is repeated after every request cries wolf in the end: at a true success of
95 % the rule 'below 90 % over 100 requests' fires almost surely within 10,000 (ERRATA 11). An
e-value does not: under its null hypothesis it exceeds 1/α *ever*, at any stopping time, with
probability at most α (Ville 1939). It reads as odds: 20 is the strength of α = 0.05.

The mixtures are Robbins' (Robbins 1970, Ann. Math. Stat. 41:1397); see Howard, Ramdas, McAuliffe &
Sekhon 2021 (Ann. Stat. 49:1055) and Waudby-Smith & Ramdas 2024 (JRSS-B 86:1). For independent 0/1
outcomes they depend on the counts alone, so a monitor keeps two integers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

from contracts.measure import Interval

_ALTERNATIVES = 32


def evidence_below(threshold: float, successes: int, n: int) -> float:
    """The e-value against 'the success rate is at least `threshold`'.

    The mean over 32 equally spaced rates q < threshold of the likelihood ratio of q to `threshold`.
    Each ratio is a supermartingale under every rate ≥ threshold, and so is their mean.
    """
    if not 0.0 < threshold < 1.0:
        raise ValueError("the threshold lies strictly between 0 and 1")
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}")
    ratios = [successes * s + (n - successes) * f for s, f in _log_ratios(threshold)]
    largest = max(ratios)
    mean = sum(math.exp(r - largest) for r in ratios) / len(ratios)
    return math.exp(min(largest + math.log(mean), 700.0))


def evidence_above(threshold: float, events: int, n: int) -> float:
    """The e-value against 'the event rate is at most `threshold`': errors, overrides, failures."""
    return evidence_below(1.0 - threshold, n - events, n)


@lru_cache(maxsize=64)
def _log_ratios(threshold: float) -> tuple[tuple[float, float], ...]:
    rates = [threshold * (k + 0.5) / _ALTERNATIVES for k in range(_ALTERNATIVES)]
    return tuple((math.log(q / threshold), math.log1p(-q) - math.log1p(-threshold)) for q in rates)


def rate_sequence(successes: int, n: int, level: float = 0.95) -> Interval:
    """A confidence sequence of a rate: right at all times at once with probability `level`.

    The rates whose likelihood is more than (1 − level) times the uniform mixture's,
    {p : pˢ(1−p)ᶠ > (1 − level)·B(s+1, f+1)} (Robbins 1970).
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}")
    if n == 0:
        return Interval(low=0.0, high=1.0, level=level)
    failures = n - successes
    mixture = math.lgamma(successes + 1) + math.lgamma(failures + 1) - math.lgamma(n + 2)
    floor = mixture + math.log1p(-level)

    def inside(p: float) -> bool:
        likelihood = successes * math.log(p) if successes else 0.0
        likelihood += failures * math.log1p(-p) if failures else 0.0
        return likelihood > floor

    peak = successes / n
    low = 0.0 if successes == 0 else _edge(0.0, peak, inside)
    high = 1.0 if failures == 0 else _edge(1.0, peak, inside)
    return Interval(low=low, high=high, level=level)


def _edge(outside: float, peak: float, inside: Callable[[float], bool]) -> float:
    """Bisect from a rate outside the set to the likelihood's peak inside it."""
    near = peak
    for _ in range(60):
        middle = (outside + near) / 2
        if inside(middle):
            near = middle
        else:
            outside = middle
    return outside


def difference_sequence(
    baseline: tuple[int, int], candidate: tuple[int, int], level: float = 0.95
) -> Interval:
    """A confidence sequence of candidate minus baseline, each arm `(successes, n)`.

    Both arms' sequences at half the error, joined (Bonferroni): right at all times, however the
    outcomes of the two arms interleave.
    """
    arm_level = (1 + level) / 2
    a = rate_sequence(*baseline, level=arm_level)
    b = rate_sequence(*candidate, level=arm_level)
    return Interval(low=b.low - a.high, high=b.high - a.low, level=level)
