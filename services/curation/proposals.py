"""Which rows could be alike, once every row is known: most share no band with any other (C5).

The first leg keeps the band keys of its rows, a shard's in one piece. When all rows are known, the
keys that come twice are marked; the second leg asks and indexes for those alone. A row whose keys
nobody shares is like no other and costs nothing more. Without this the index of a large corpus is
some twenty random places of a tree on disk for each row, most of them never found again.

Keys are counted in parts, by hash, so that memory does not grow with the corpus.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence

import numpy as np

from services.curation.duplicates import compared
from services.curation.rows import TracedRow
from shared.similarity.minhash import NearDuplicates

CELLS = 4 << 20
"""Keys counted at once: eight bytes each, and as many for sorting them."""


class Proposals:
    """Band keys by row number, in the workbench's database."""

    def __init__(self, near: NearDuplicates, db: sqlite3.Connection, cells: int = CELLS) -> None:
        self._near, self._db, self._cells = near, db, cells
        self._held: dict[int, list[int]] = {}
        self._last = 0
        db.execute(
            "CREATE TABLE IF NOT EXISTS sketches"
            " (last INTEGER PRIMARY KEY, numbers BLOB, keys BLOB)"
        )
        db.execute("CREATE TABLE IF NOT EXISTS shared (last INTEGER PRIMARY KEY, marks BLOB)")

    def note(self, rows: Sequence[TracedRow]) -> None:
        """Keep the keys of a shard's rows, which are in order."""
        if not rows:
            return
        texts, aparts = zip(*map(compared, rows), strict=True)
        keys = self._near.keys(texts, aparts)
        numbers = np.array([traced.number for traced in rows], dtype=np.int64)
        values = int(numbers[-1]), numbers.tobytes(), keys.tobytes()
        self._db.execute("INSERT INTO sketches VALUES (?, ?, ?)", values)

    def settle(self) -> None:
        """Mark the keys that more than one place of the corpus has, once all rows are noted."""
        query = "SELECT coalesce(sum(length(keys)), 0) / 8 FROM sketches"
        [cells] = self._db.execute(query).fetchone()
        parts = max(1, -(-cells // self._cells))
        self._db.execute("DELETE FROM shared")
        self._db.execute("INSERT INTO shared SELECT last, zeroblob(length(keys) / 8) FROM sketches")
        for part in range(parts):
            chosen = [keys[keys.view(np.uint64) % parts == part] for _, keys, _ in self._shards()]
            values, counts = np.unique(np.concatenate([*chosen, _NONE]), return_counts=True)
            twice = values[counts > 1]
            for last, keys, marks in self._shards():
                update = "UPDATE shared SET marks = ? WHERE last = ?"
                self._db.execute(update, ((marks | _among(keys, twice)).tobytes(), last))

    def keys(self, number: int) -> list[int]:
        """The row's keys that another row has too."""
        if number > self._last:
            query = (
                f"SELECT last, numbers, keys, marks {_BOTH} WHERE last >= ? ORDER BY last LIMIT 1"
            )
            self._last, numbers, keys, marks = self._db.execute(query, (number,)).fetchone()
            of = np.frombuffer(numbers, np.int64)
            every = np.frombuffer(keys, np.int64).reshape(len(of), -1)
            marked = np.frombuffer(marks, np.bool_).reshape(len(of), -1)
            self._held = {int(n): k[m].tolist() for n, k, m in zip(of, every, marked, strict=True)}
        return self._held[number]

    def _shards(self) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        places = [last for (last,) in self._db.execute("SELECT last FROM sketches ORDER BY last")]
        for last in places:
            query = f"SELECT keys, marks {_BOTH} WHERE last = ?"
            keys, marks = self._db.execute(query, (last,)).fetchone()
            yield last, np.frombuffer(keys, np.int64), np.frombuffer(marks, np.bool_)


_BOTH = "FROM sketches JOIN shared USING (last)"
_NONE = np.zeros(0, dtype=np.int64)


def _among(keys: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    """Which keys are in `ordered`, which is sorted and, unlike for `np.isin`, sorted once."""
    if not len(ordered):
        return np.zeros(len(keys), dtype=np.bool_)
    places = np.searchsorted(ordered, keys)
    found: np.ndarray = ordered[np.minimum(places, len(ordered) - 1)] == keys
    return found
