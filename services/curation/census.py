"""What must be known of all rows that stay before the first is written: groups, general rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from services.curation.composition import REHEARSAL
from services.curation.rehearsal import order, wanted
from services.curation.rows import TracedRow
from services.curation.splitting import place, validation_groups

_BYTES = 16
"""Of a hash; enough that no two of any corpus are alike."""


def group_key(traced: TracedRow) -> bytes:
    """The row's content group, as the census knows it."""
    return place(traced.row.cluster)[:_BYTES]


class Census:
    """Counted on disk, row by row."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        db.execute(
            "CREATE TABLE IF NOT EXISTS census"
            " (number INTEGER PRIMARY KEY, place BLOB, general BLOB)"
        )

    def note(self, rows: Iterable[TracedRow]) -> None:
        """Count rows that stay."""
        self._db.executemany(
            "INSERT INTO census VALUES (?, ?, ?)",
            [
                (t.number, group_key(t), order(t.row.id) if t.role == REHEARSAL else None)
                for t in rows
            ],
        )

    def counts(self) -> tuple[int, int]:
        """(rows that are no rehearsal, rehearsal rows)."""
        query = "SELECT count(*) - count(general), count(general) FROM census"
        others, general = self._db.execute(query).fetchone()
        return others, general

    def cutoff(self, share: float) -> bytes | None:
        """The place of the first rehearsal row that is too many; None where none is."""
        query = (
            "SELECT general FROM census WHERE general IS NOT NULL ORDER BY general LIMIT 1 OFFSET ?"
        )
        found = self._db.execute(query, (wanted(share, self.counts()[0]),)).fetchone()
        return None if found is None else bytes(found[0])

    def held(self, share: float, cutoff: bytes | None) -> frozenset[bytes]:
        """The groups that validate, of the rows that stay under `cutoff`."""
        stay = "FROM census WHERE general IS NULL OR ?1 IS NULL OR general < ?1"
        query = f"SELECT count(DISTINCT place), count(*) {stay}"
        groups, rows = self._db.execute(query, (cutoff,)).fetchone()
        query = f"SELECT place, count(*) {stay} GROUP BY place ORDER BY place"
        return validation_groups(self._db.execute(query, (cutoff,)), groups, rows, share)
