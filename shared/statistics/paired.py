"""Candidate against baseline on the same items.

Items are right or wrong (0 and 1) or scored in between; items of one cluster (a document, a
function, a user) are not independent. Independent binary items get Newcombe's interval and
McNemar's exact p; everything else the clustered bootstrap, which needs a change to resample.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from contracts.measure import Comparison, Interval, Measurement, VerdictName
from shared.statistics.power import detectable_paired
from shared.statistics.proportion import proportion, wilson

RESAMPLES = 4000


def mcnemar_p(gained: int, lost: int) -> float:
    """McNemar's exact two-sided p: of the items whose verdict changed, `gained` and `lost`."""
    changed = gained + lost
    tail = sum(math.comb(changed, k) for k in range(min(gained, lost) + 1))
    return min(1.0, float(2 * tail / (1 << changed)))


def paired_difference(
    both: int, lost: int, gained: int, neither: int, level: float = 0.95
) -> Interval:
    """Newcombe's interval of candidate minus baseline (1998, Statist. Med. 17:2635, method 10).

    The four cells: items both get right, only the baseline, only the candidate, neither. A hybrid
    of the two Wilson intervals, with the correlation φ corrected for continuity when positive.
    """
    n = both + lost + gained + neither
    if n == 0:
        return Interval(low=-1.0, high=1.0, level=level)
    p_baseline, p_candidate = (both + lost) / n, (both + gained) / n
    baseline = wilson(both + lost, n, level)
    candidate = wilson(both + gained, n, level)
    phi = _phi(both, lost, gained, neither)
    difference = (gained - lost) / n
    below = _joined(p_candidate - candidate.low, baseline.high - p_baseline, phi)
    above = _joined(candidate.high - p_candidate, p_baseline - baseline.low, phi)
    return Interval(
        low=max(-1.0, difference - below), high=min(1.0, difference + above), level=level
    )


def _phi(both: int, lost: int, gained: int, neither: int) -> float:
    margins = (both + lost) * (gained + neither) * (both + gained) * (lost + neither)
    if margins == 0:
        return 0.0
    n = both + lost + gained + neither
    product = float(both * neither - lost * gained)
    if product > 0:
        product = max(product - n / 2, 0.0)
    return product / math.sqrt(margins)


def _joined(first: float, second: float, phi: float) -> float:
    return math.sqrt(max(0.0, first * first - 2 * phi * first * second + second * second))


def paired_bootstrap(
    differences: Sequence[float],
    clusters: Sequence[Hashable] | None = None,
    *,
    level: float = 0.95,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval:
    """Percentile bootstrap of a mean; whole clusters are drawn with replacement.

    Source: Davison & Hinkley 1997, §3.8. The same seed gives the same interval.
    """
    import numpy as np

    if not differences:
        return Interval(low=-math.inf, high=math.inf, level=level)
    sums, sizes = _by_cluster(differences, clusters)
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    for start in range(0, resamples, 256):  # bounded memory for any number of items
        count = min(256, resamples - start)
        drawn = rng.integers(0, len(sums), size=(count, len(sums)))
        means[start : start + count] = np.asarray(sums)[drawn].sum(axis=1) / np.asarray(sizes)[
            drawn
        ].sum(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(low=float(low), high=float(high), level=level)


def _by_cluster(
    values: Sequence[float], clusters: Sequence[Hashable] | None
) -> tuple[list[float], list[int]]:
    totals: dict[Hashable, list[float]] = {}
    for value, cluster in zip(values, clusters or range(len(values)), strict=True):
        entry = totals.setdefault(cluster, [0.0, 0])
        entry[0] += value
        entry[1] += 1
    return [t[0] for t in totals.values()], [int(t[1]) for t in totals.values()]


def mean_with_interval(
    name: str,
    values: Sequence[float],
    clusters: Sequence[Hashable] | None = None,
    *,
    level: float = 0.95,
    seed: int = 0,
) -> Measurement:
    """A mean score: Wilson's interval for independent rights and wrongs, else the bootstrap's."""
    if _binary(values) and _independent(clusters):
        return proportion(name, round(sum(values)), len(values), level)
    n = len(values)
    interval = paired_bootstrap(values, clusters, level=level, seed=seed)
    return Measurement(name=name, value=sum(values) / n if n else 0.0, n=n, interval=interval)


def compare_paired(
    metric: str,
    baseline: Sequence[float],
    candidate: Sequence[float],
    clusters: Sequence[Hashable] | None = None,
    *,
    level: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Candidate minus baseline on the same items, in the same order, with a two-sided interval."""
    if len(baseline) != len(candidate):
        raise ValueError(f"{len(baseline)} baseline items against {len(candidate)}")
    n = len(baseline)
    differences = [c - b for b, c in zip(baseline, candidate, strict=True)]
    p_value = None
    if _binary(baseline) and _binary(candidate) and _independent(clusters):
        gained, lost = differences.count(1.0), differences.count(-1.0)
        both = sum(1 for b, c in zip(baseline, candidate, strict=True) if b == c == 1)
        interval = paired_difference(both, lost, gained, n - both - lost - gained, level)
        p_value = mcnemar_p(gained, lost)
    elif not any(differences) and _binary(baseline):
        # no resample of nothing has a width: each cluster counts as one item without a change
        interval = paired_difference(len(set(clusters or range(n))), 0, 0, 0, level)
    else:
        interval = paired_bootstrap(differences, clusters, level=level, seed=seed)
    return Comparison(
        metric=metric,
        baseline=sum(baseline) / n if n else 0.0,
        candidate=sum(candidate) / n if n else 0.0,
        difference=sum(differences) / n if n else 0.0,
        interval=interval,
        n=n,
        p_value=p_value,
        detectable=detectable_paired(n, _discordance(differences, clusters), level=level),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class NonInferiority:
    """Whether the candidate is worse than the baseline by less than a margin."""

    verdict: VerdictName
    comparison: Comparison
    """Its interval is two-sided at 2·level − 1, so that each end is a one-sided bound at `level`;
    `detectable` is the smallest margin this sample can show for truly equal models."""
    margin: float


def non_inferior(
    metric: str,
    baseline: Sequence[float],
    candidate: Sequence[float],
    clusters: Sequence[Hashable] | None = None,
    *,
    margin: float,
    level: float = 0.95,
    seed: int = 0,
) -> NonInferiority:
    """Paired non-inferiority at a one-sided `level` (ERRATA 10).

    Passed: the whole interval lies above −margin. Failed: the whole interval lies below it.
    Inconclusive: the sample cannot tell, which is never a pass.
    """
    two_sided = 2 * level - 1
    comparison = compare_paired(metric, baseline, candidate, clusters, level=two_sided, seed=seed)
    differences = [c - b for b, c in zip(baseline, candidate, strict=True)]
    discordance = _discordance(differences, clusters)
    reach = detectable_paired(len(differences), discordance, level=level, sides=1)
    verdict: VerdictName = "inconclusive"
    if not differences:
        verdict = "inconclusive"
    elif comparison.interval.low > -margin:
        verdict = "passed"
    elif comparison.interval.high < -margin:
        verdict = "failed"
    return NonInferiority(
        verdict=verdict,
        comparison=comparison.model_copy(update={"detectable": reach}),
        margin=margin,
    )


def _binary(values: Sequence[float]) -> bool:
    return all(value in (0.0, 1.0) for value in values)


def _independent(clusters: Sequence[Hashable] | None) -> bool:
    return clusters is None or len(set(clusters)) == len(clusters)


def _discordance(differences: Sequence[float], clusters: Sequence[Hashable] | None) -> float:
    """The variance of one difference (for binary items, the share that disagrees), never zero.

    One disagreement in two more items is added (Laplace), since a sample without any has not shown
    that there are none. Clusters inflate it by their design effect.
    """
    n = len(differences)
    share = (sum(d * d for d in differences) + 1) / (n + 2)
    if n == 0 or _independent(clusters):
        return share
    sums, _ = _by_cluster(differences, clusters)
    squares = sum(d * d for d in differences)
    return share * max(1.0, sum(s * s for s in sums) / squares) if squares else share
