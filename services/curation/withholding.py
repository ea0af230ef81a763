"""Rows that an earlier candidate gave away are not trained on again (G7, redact and retrain)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from services.curation.rows import Stage, Tally, TracedRow


def withheld(names: Iterable[str]) -> Stage:
    """Drop the rows whose id is one of `names`; a name that is no row is a warning."""
    wanted = frozenset(names)

    def apply(rows: Iterable[TracedRow], tally: Tally) -> Iterator[TracedRow]:
        for traced in rows:
            if traced.row.id in wanted:
                tally.marks[traced.row.id] += 1
                tally.drop(traced, "withheld", "an earlier candidate gave it away")
            else:
                yield traced

    def warn(total: Tally) -> list[str]:
        missing = sorted(wanted - set(total.marks))
        return [f"withheld rows that are not in the data: {', '.join(missing)}"] if missing else []

    return Stage("withholding", apply, warn)
