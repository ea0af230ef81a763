"""Who was first: keys and what came with them, on disk, for a corpus that no dictionary holds."""

from __future__ import annotations

import sqlite3


class Firsts:
    """A table of key → value that keeps the first value given for a key, as `dict.setdefault`.

    Its rows are committed with whatever else the database commits. Memory is SQLite's page cache.
    """

    def __init__(self, db: sqlite3.Connection, name: str) -> None:
        self._db = db
        self._find = f"SELECT value FROM {name} WHERE key = ?"
        self._add = f"INSERT INTO {name} VALUES (?, ?)"
        db.execute(
            f"CREATE TABLE IF NOT EXISTS {name} (key BLOB PRIMARY KEY, value TEXT) WITHOUT ROWID"
        )

    def setdefault(self, key: bytes, value: str) -> str:
        """The value first given for `key`."""
        found = self._db.execute(self._find, (key,)).fetchone()
        if found is not None:
            return str(found[0])
        self._db.execute(self._add, (key, value))
        return value
