"""Rehearsal: general data mixed in, so that what the base knew is not overwritten (C9).

The job says which share of the dataset its `rehearsal` sources are to have. Surplus rows are left
out in an order that only their ids decide; where there are too few, the card says so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from services.curation.composition import REHEARSAL
from services.curation.rows import Stage, Tally, TracedRow


def wanted(share: float, others: int) -> int:
    """How many rehearsal rows make up `share` of a dataset with `others` other rows."""
    return round(share / (1 - share) * others)


def rehearsal(share: float, others: int, general: int, cutoff: bytes | None) -> Stage:
    """Keep as many rehearsal rows as make up `share` of all that remains.

    Args:
        share: of the dataset.
        others: rows that are no rehearsal.
        general: rehearsal rows.
        cutoff: the place (`order`) of the first rehearsal row that is too many; None: none is.

    """

    def apply(rows: Iterable[TracedRow], tally: Tally) -> Iterator[TracedRow]:
        for traced in rows:
            if cutoff is not None and traced.role == REHEARSAL and order(traced.row.id) >= cutoff:
                tally.drop(traced, "rehearsal_surplus")
            else:
                yield traced

    def warn(_: Tally) -> list[str]:
        if general >= (needed := wanted(share, others)):
            return []
        return [f"rehearsal: {general} general rows; {share:.0%} of the mix are {needed}"]

    return Stage("rehearsal", apply, warn)


def order(row: str) -> bytes:
    """The place of a rehearsal row, by its id, in the order that they are taken in."""
    return hashlib.sha256(b"sluice.rehearsal/v1:" + row.encode()).digest()
