"""The 80/10/10 mix: positive exemplars, constraint boundaries, negative contrasts (C1).

The shares are measured and a deviation is a warning on the card. Rows are never resampled to make
the numbers fit. Rehearsal rows are reported beside the mix and don't count towards it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from services.curation.rows import TracedRow

REHEARSAL = "rehearsal"


def composition(rows: Iterable[TracedRow]) -> dict[str, float]:
    """Role → share of all training rows. Empty for no rows."""
    counts = Counter(traced.role for traced in rows)
    total = sum(counts.values())
    return {role: round(count / total, 4) for role, count in sorted(counts.items())}


def deviations(
    measured: Mapping[str, float], wanted: Mapping[str, float], tolerance: float
) -> list[str]:
    """A sentence for every role whose share of the mix is off by more than `tolerance`."""
    mixed = sum(share for role, share in measured.items() if role != REHEARSAL)
    if mixed == 0:
        return []
    sentences = []
    for role, target in sorted(wanted.items()):
        share = measured.get(role, 0.0) / mixed
        if abs(share - target) > tolerance + 1e-9:
            sentences.append(
                f"composition: {role} rows are {share:.1%} of the mix, {target:.0%} wanted "
                f"(tolerance {tolerance:.0%}); nothing was resampled"
            )
    return sentences
