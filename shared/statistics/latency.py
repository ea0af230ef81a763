"""Latency: a percentile of one arm over the same percentile of another."""

from __future__ import annotations

import math
from collections.abc import Sequence

from contracts.measure import Interval, Measurement


def percentile_ratio(
    name: str,
    baseline_ms: Sequence[float],
    candidate_ms: Sequence[float],
    *,
    percentile: float = 95.0,
    level: float = 0.95,
    seed: int = 0,
    resamples: int = 2000,
) -> Measurement:
    """Candidate percentile over baseline percentile, with the percentile bootstrap's interval.

    The arms are independent samples and resampled apart. `n` is the smaller arm. With an empty arm
    there is no ratio: the value is 1 and the interval 0..∞.
    """
    import numpy as np

    n = min(len(baseline_ms), len(candidate_ms))
    if n == 0:
        interval = Interval(low=0.0, high=math.inf, level=level)
        return Measurement(name=name, value=1.0, n=0, interval=interval)
    arms = np.asarray(baseline_ms, dtype=float), np.asarray(candidate_ms, dtype=float)
    if min(arm.min() for arm in arms) <= 0:
        raise ValueError("a latency is above 0 ms")
    rng = np.random.default_rng(seed)
    bottom, top = (
        np.percentile(
            arm[rng.integers(0, len(arm), size=(resamples, len(arm)))], percentile, axis=1
        )
        for arm in arms
    )
    low, high = np.quantile(top / bottom, [(1 - level) / 2, (1 + level) / 2])
    value = float(np.percentile(arms[1], percentile) / np.percentile(arms[0], percentile))
    return Measurement(
        name=name,
        value=value,
        n=n,
        interval=Interval(low=float(low), high=float(high), level=level),
    )
