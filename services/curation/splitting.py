"""Train and validation, disjoint by content group and the same every time (C8).

Groups are ordered by a hash of their name. Whole groups go to validation until its share is
reached; a group that would overshoot it is passed over, so that none can swallow the split.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

_SALT = b"sluice.split/v1:"


def validation_groups(
    sizes: Iterable[tuple[bytes, int]], groups: int, rows: int, share: float
) -> frozenset[bytes]:
    """The groups whose rows validate. At least one group always stays in training.

    Args:
        sizes: (`place` of a group, its rows), sorted by place.
        groups: how many groups there are.
        rows: how many rows they have together.
        share: of the rows that are to validate.

    """
    if share <= 0 or groups < 2:
        return frozenset()
    wanted = max(1, round(share * rows))
    chosen: set[bytes] = set()
    taken = 0
    for place, size in sizes:
        if taken >= wanted or len(chosen) == groups - 1:
            break
        if taken + size <= wanted:
            chosen.add(place)
            taken += size
    return frozenset(chosen)


def place(group: str) -> bytes:
    """Where a group stands in the order that validation takes groups in."""
    return hashlib.sha256(_SALT + group.encode()).digest()
