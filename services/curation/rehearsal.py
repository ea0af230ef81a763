"""Rehearsal: general data mixed in, so that what the base knew is not overwritten (C9).

The job says which share of the dataset its `rehearsal` sources are to have. Surplus rows are left
out in an order that only their ids decide; where there are too few, the card says so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from services.curation.composition import REHEARSAL
from services.curation.rows import Stage, Tally, TracedRow


def rehearsal(share: float) -> Stage:
    """Keep as many rehearsal rows as make up `share` of all that remains."""

    def apply(rows: Iterable[TracedRow], tally: Tally) -> Iterator[TracedRow]:
        listed = list(rows)
        general = sorted((t for t in listed if t.role == REHEARSAL), key=_order)
        wanted = round(share / (1 - share) * (len(listed) - len(general)))
        surplus = {id(traced) for traced in general[wanted:]}
        if len(general) < wanted:
            tally.warnings.append(
                f"rehearsal: {len(general)} general rows; {share:.0%} of the mix are {wanted}"
            )
        for traced in listed:
            if id(traced) in surplus:
                tally.drop(traced, "rehearsal_surplus")
            else:
                yield traced

    return Stage("rehearsal", apply)


def _order(traced: TracedRow) -> bytes:
    return hashlib.sha256(b"sluice.rehearsal/v1:" + traced.row.id.encode()).digest()
