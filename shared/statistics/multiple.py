"""Many comparisons at once: the chance of any false alarm among them stays at one level.

A verdict that looks at fourteen skills finds one that fell by luck in every second null comparison,
at 5 % each. Holm's step-down method (1979, Scand. J. Statist. 6:65) holds the chance of any false
alarm, whatever the dependence, and is never weaker than Bonferroni's.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from contracts.measure import Comparison
from shared.statistics.paired import compare_paired


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the order given: reject those below the level of them all together."""
    m = len(p_values)
    order = sorted(range(m), key=p_values.__getitem__)
    adjusted, highest = [0.0] * m, 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (m - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def compare_slices(
    prefix: str,
    slices: Sequence[str],
    baseline: Sequence[float],
    candidate: Sequence[float],
    clusters: Sequence[Hashable] | None = None,
    *,
    level: float = 0.95,
) -> tuple[Comparison, ...]:
    """One paired comparison for each slice, named `prefix:slice`, with Holm's p over all of them.

    `slices` names the slice of each item. A slice of items that share clusters, or are not right or
    wrong, gives no p and is not among the tests. One slice is no slicing: empty.
    """
    names = list(dict.fromkeys(slices))
    if len(names) < 2:
        return ()
    found = []
    for name in names:
        own = [index for index, of in enumerate(slices) if of == name]
        found.append(
            compare_paired(
                f"{prefix}:{name}",
                [baseline[index] for index in own],
                [candidate[index] for index in own],
                [clusters[index] for index in own] if clusters else None,
                level=level,
            )
        )
    tested = [index for index, c in enumerate(found) if c.p_value is not None]
    for index, adjusted in zip(
        tested, holm([found[index].p_value or 0.0 for index in tested]), strict=True
    ):
        found[index] = found[index].model_copy(update={"adjusted_p": adjusted})
    return tuple(found)


def fallen(slices: Sequence[Comparison], *, level: float) -> list[Comparison]:
    """Slices that fell by more than chance, all of them looked at together; the worst first."""
    alpha = 1 - level
    found = [
        c for c in slices if c.difference < 0 and c.adjusted_p is not None and c.adjusted_p <= alpha
    ]
    return sorted(found, key=lambda c: c.difference)
