"""One rate with its interval, and two rates from independent samples (canary against stable)."""

from __future__ import annotations

import math

from contracts.measure import Comparison, Interval, Measurement
from shared.statistics.normal import two_sided_z, upper_tail
from shared.statistics.power import detectable_two_sample


def wilson(successes: int, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion (Wilson 1927, eq. 5). Without items it is 0..1."""
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}")
    if n == 0:
        return Interval(low=0.0, high=1.0, level=level)
    z = two_sided_z(level)
    p = successes / n
    centre = p + z * z / (2 * n)
    spread = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    low = 0.0 if successes == 0 else (centre - spread) / scale
    high = 1.0 if successes == n else (centre + spread) / scale
    return Interval(low=low, high=high, level=level)


def proportion(name: str, successes: int, n: int, level: float = 0.95) -> Measurement:
    """A rate with Wilson's interval. Of no items the value is 0 and the interval says 0..1."""
    interval = wilson(successes, n, level)
    return Measurement(name=name, value=successes / n if n else 0.0, n=n, interval=interval)


def compare_two_samples(
    metric: str, baseline: tuple[int, int], candidate: tuple[int, int], level: float = 0.95
) -> Comparison:
    """Candidate minus baseline of two independent samples, each `(successes, n)`.

    Interval: Newcombe's hybrid score interval (Newcombe 1998, Statist. Med. 17:873, method 10).
    p-value: two-sided pooled z test. `Comparison.n` is the smaller sample.
    """
    (a, n_a), (b, n_b) = baseline, candidate
    p_a, p_b = (a / n_a if n_a else 0.0), (b / n_b if n_b else 0.0)
    first, second = wilson(a, n_a, level), wilson(b, n_b, level)
    difference = p_b - p_a
    below = math.hypot(p_b - second.low, first.high - p_a)
    above = math.hypot(second.high - p_b, p_a - first.low)
    return Comparison(
        metric=metric,
        baseline=p_a,
        candidate=p_b,
        difference=difference,
        interval=Interval(
            low=max(-1.0, difference - below), high=min(1.0, difference + above), level=level
        ),
        n=min(n_a, n_b),
        p_value=_pooled_p(baseline, candidate),
        detectable=detectable_two_sample(n_a, n_b, p_a, level=level) if n_a and n_b else None,
    )


def _pooled_p(first: tuple[int, int], second: tuple[int, int]) -> float | None:
    (a, n_a), (b, n_b) = first, second
    if not n_a or not n_b:
        return None
    pooled = (a + b) / (n_a + n_b)
    error = math.sqrt(pooled * (1 - pooled) * (1 / n_a + 1 / n_b))
    return 2 * upper_tail(abs(b / n_b - a / n_a) / error) if error else 1.0
