"""Choosing among several ways of one rung without being flattered by the choice.

The best of k ways on a set looks better there than it is. So each item is answered by the way that
did best on the *other* folds: what is averaged never saw the choice made for it, and every item
still counts (cross-fitting; Stone 1974, "Cross-validatory choice", J. R. Statist. Soc. B 36).
"""

from __future__ import annotations

from collections.abc import Sequence

from shared.asking import Scored

FOLDS = 5


def best_way(ways: Sequence[Sequence[Scored]]) -> int:
    """Index of the way with the highest mean on all items; the earliest of equals."""
    return max(range(len(ways)), key=lambda way: sum(s.value for s in ways[way]))


def cross_fitted(ways: Sequence[Sequence[Scored]]) -> tuple[int, ...]:
    """For each item, the way that did best on the folds without it.

    `ways` hold the same items in the same order. Items of one cluster share a fold. One cluster
    alone has no other folds: its items get the first way.
    """
    items = ways[0]
    clusters = dict.fromkeys(item.cluster for item in items)
    fold_of = {cluster: place % FOLDS for place, cluster in enumerate(clusters)}
    folds = [fold_of[item.cluster] for item in items]
    best = {
        fold: best_way([[s for s, f in zip(way, folds, strict=True) if f != fold] for way in ways])
        for fold in set(folds)
    }
    return tuple(best[fold] for fold in folds)
