"""Train and validation, disjoint by content group and the same every time (C8).

Groups are ordered by a hash of their name. Whole groups go to validation until its share is
reached; a group that would overshoot it is passed over, so that none can swallow the split.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

from services.curation.rows import TracedRow

_SALT = b"sluice.split/v1:"


def validation_groups(rows: Sequence[TracedRow], share: float) -> frozenset[str]:
    """The groups whose rows validate. At least one group always stays in training."""
    sizes = Counter(traced.row.cluster for traced in rows)
    if share <= 0 or len(sizes) < 2:
        return frozenset()
    wanted = max(1, round(share * len(rows)))
    chosen: set[str] = set()
    taken = 0
    for group in sorted(sizes, key=_order):
        if taken >= wanted or len(chosen) == len(sizes) - 1:
            break
        if taken + sizes[group] <= max(wanted, 1):
            chosen.add(group)
            taken += sizes[group]
    return frozenset(chosen)


def split(rows: Sequence[TracedRow], share: float) -> tuple[list[TracedRow], list[TracedRow]]:
    """(train, validation), each in the order of `rows`."""
    held = validation_groups(rows, share)
    train = [traced for traced in rows if traced.row.cluster not in held]
    return train, [traced for traced in rows if traced.row.cluster in held]


def _order(group: str) -> bytes:
    return hashlib.sha256(_SALT + group.encode()).digest()
