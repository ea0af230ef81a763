"""Vectors of the rows that stay, on disk, searched exactly (C5).

They are kept in blocks of a table, each of one group; a search reads the blocks of its group one
after the other, for a whole batch of rows at once. Memory holds a block and a batch, however many
rows there are. The blocks commit with whatever else the database commits.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

import numpy as np

BLOCK = 1024
"""Vectors of a block: 1.5 MB of 384 floats each."""
Near = tuple[str, float] | None
"""The key of the nearest text and its cosine."""


class StoredMeanings:
    """Keys and unit vectors in groups that are never compared with each other."""

    def __init__(self, db: sqlite3.Connection, block: int = BLOCK) -> None:
        self._db, self._block = db, block
        db.execute(
            "CREATE TABLE IF NOT EXISTS meanings"
            " (place INTEGER PRIMARY KEY, apart TEXT, keys TEXT, vectors BLOB)"
        )
        db.execute("CREATE INDEX IF NOT EXISTS meanings_by_group ON meanings (apart, place)")

    def closest(self, apart: str, vectors: np.ndarray, threshold: float) -> list[Near]:
        """For each vector, [queries, width], the nearest of its group, the earlier of two.

        None where none reaches `threshold`.
        """
        best: list[Near] = [None] * len(vectors)
        query = "SELECT keys, vectors FROM meanings WHERE apart = ? ORDER BY place"
        for keys, content in self._db.execute(query, (apart,)):
            stored = np.frombuffer(content, np.float32).reshape(-1, vectors.shape[1])
            scores = stored @ vectors.T
            names: list[str] | None = None
            for column, index in enumerate(scores.argmax(axis=0)):
                score, found = float(scores[index, column]), best[column]
                if score >= threshold and (found is None or score > found[1]):
                    names = json.loads(keys) if names is None else names
                    best[column] = names[index], score
        return best

    def add(self, apart: str, keys: Sequence[str], vectors: np.ndarray) -> None:
        """Append vectors, [keys, width], to a group; its last block is filled up first."""
        query = (
            "SELECT place, keys, vectors FROM meanings WHERE apart = ? ORDER BY place DESC LIMIT 1"
        )
        names, content = list(keys), vectors.astype(np.float32, copy=False)
        last = self._db.execute(query, (apart,)).fetchone()
        if last is not None and len(before := json.loads(last[1])) < self._block:
            held = np.frombuffer(last[2], np.float32).reshape(len(before), -1)
            names, content = before + names, np.concatenate([held, content])
            self._db.execute("DELETE FROM meanings WHERE place = ?", last[:1])
        for start in range(0, len(names), self._block):
            chosen = slice(start, start + self._block)
            self._db.execute(
                "INSERT INTO meanings (apart, keys, vectors) VALUES (?, ?, ?)",
                (apart, json.dumps(names[chosen]), content[chosen].tobytes()),
            )
