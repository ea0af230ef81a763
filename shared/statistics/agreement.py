"""Do raters agree more than chance would have them? Cohen's and Fleiss' kappa, with intervals (C2).

Cohen's is for two raters (Cohen 1960; its large-sample error is Fleiss, Cohen and Everitt 1969,
equation 14). Fleiss' is for many, who need not be the same for every item (Fleiss 1971). Items may
have different numbers of labels: an item counts by the pairs of labels it has, and one with a
single label says nothing about agreement.

Kappa alone misleads where one label dominates, so the base rate is reported with it. Where only one
label was ever given, kappa is 0/0: no evidence, not perfect agreement.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Literal

import numpy as np

from contracts.measure import Interval
from shared.statistics.normal import two_sided_z

_RESAMPLES = 2000

Ratings = Mapping[str, Mapping[str, str]]
"""Item → rater → label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How well raters agree on `items` items."""

    kind: Literal["cohen", "fleiss"]
    kappa: float | None
    """None where it is 0/0."""
    interval: Interval | None
    items: int
    raters: int
    observed: float
    """Share of pairs of labels that agree."""
    base_rate: float
    """Share of the commonest label."""


def agreement(ratings: Ratings, level: float = 0.95) -> Agreement:
    """Cohen's kappa where exactly two raters gave the labels, else Fleiss'."""
    shared = {item: labels for item, labels in ratings.items() if len(labels) > 1}
    raters = sorted({rater for labels in shared.values() for rater in labels})
    if len(raters) == 2:
        pairs = [(labels[raters[0]], labels[raters[1]]) for labels in shared.values()]
        return cohen_kappa(pairs, level)
    return fleiss_kappa([list(labels.values()) for labels in shared.values()], len(raters), level)


def cohen_kappa(pairs: Sequence[tuple[str, str]], level: float = 0.95) -> Agreement:
    """Agreement of two raters over `pairs` of labels, one pair for each item."""
    n = len(pairs)
    labels = sorted({label for pair in pairs for label in pair})
    index = {label: i for i, label in enumerate(labels)}
    table = np.zeros((len(labels), len(labels)))
    for first, second in pairs:
        table[index[first], index[second]] += 1
    shares = table / max(n, 1)
    rows, columns = shares.sum(axis=1), shares.sum(axis=0)
    observed = float(np.trace(shares))
    chance = float(rows @ columns)
    kappa = None if n == 0 or chance > 1 - 1e-12 else (observed - chance) / (1 - chance)
    interval = None
    if kappa is not None:
        error = _cohen_error(shares, rows, columns, kappa, chance, n)
        reach = two_sided_z(level) * error
        interval = Interval(low=max(-1.0, kappa - reach), high=min(1.0, kappa + reach), level=level)
    return Agreement(
        kind="cohen",
        kappa=kappa,
        interval=interval,
        items=n,
        raters=2,
        observed=observed,
        base_rate=float(((rows + columns) / 2).max(initial=0.0)),
    )


def _cohen_error(
    shares: np.ndarray, rows: np.ndarray, columns: np.ndarray, kappa: float, chance: float, n: int
) -> float:
    """The standard error of kappa, not of kappa under the hypothesis that it is zero."""
    diagonal = np.diag(shares)
    first = float((diagonal * (1 - (rows + columns) * (1 - kappa)) ** 2).sum())
    # An off-diagonal cell (i, j) is weighted by the column margin of i and the row margin of j.
    crossed = (columns[:, None] + rows[None, :]) ** 2
    off = shares * crossed
    second = (1 - kappa) ** 2 * float(off.sum() - np.trace(off))
    third = (kappa - chance * (1 - kappa)) ** 2
    return sqrt(max(0.0, first + second - third) / n) / (1 - chance)


def fleiss_kappa(labels: Sequence[Sequence[str]], raters: int, level: float = 0.95) -> Agreement:
    """Agreement of many raters; `labels` holds each item's labels.

    The interval is the percentile bootstrap over items with a fixed seed: the classical variance
    is that of kappa being zero, which says nothing about an interval around another value.
    """
    names = sorted({label for item in labels for label in item})
    counts = np.zeros((len(labels), len(names)))
    for i, item in enumerate(labels):
        for label, count in Counter(item).items():
            counts[i, names.index(label)] = count
    kappa, observed = _fleiss(counts)
    interval = None
    if kappa is not None:
        random = np.random.default_rng(0)
        drawn = random.integers(len(counts), size=(_RESAMPLES, len(counts)))
        found = [value for rows in drawn if (value := _fleiss(counts[rows])[0]) is not None]
        tail = (1 - level) / 2
        low, high = (float(np.quantile(found, q)) for q in (tail, 1 - tail))
        interval = Interval(low=min(low, kappa), high=max(high, kappa), level=level)
    total = counts.sum()
    return Agreement(
        kind="fleiss",
        kappa=kappa,
        interval=interval,
        items=len(labels),
        raters=raters,
        observed=observed,
        base_rate=float(counts.sum(axis=0).max(initial=0.0) / total) if total else 0.0,
    )


def _fleiss(counts: np.ndarray) -> tuple[float | None, float]:
    """(kappa, observed agreement) of a table of items × labels."""
    each = counts.sum(axis=1)
    if not len(counts):
        return None, 0.0
    observed = float(((counts * (counts - 1)).sum(axis=1) / (each * (each - 1))).mean())
    shares = counts.sum(axis=0) / counts.sum()
    chance = float((shares**2).sum())
    if chance > 1 - 1e-12:
        return None, observed
    return (observed - chance) / (1 - chance), observed


def disputes(ratings: Ratings) -> list[tuple[str, float]]:
    """(item, share of its pairs of labels that differ), the most disputed first."""
    found = []
    for item, labels in ratings.items():
        n = len(labels)
        if n > 1:
            same = sum(c * (c - 1) for c in Counter(labels.values()).values())
            found.append((item, 1 - same / (n * (n - 1))))
    return sorted((f for f in found if f[1] > 0), key=lambda f: (-f[1], f[0]))
