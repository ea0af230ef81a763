"""Where a curation works: a folder with a database and shards of rows, committed shard by shard.

The database holds what outlives a shard: the accounts of the stages, why rows went, what was noted
and redacted, and the indexes of stages that compare rows with earlier ones. A shard's rows are
written first; then one transaction commits its name, its digest and everything it added. A process
that is killed loses the shard it was in and nothing else: the next one finds the rest done.

The folder belongs to one content key, of all that determines the outcome. One process works in it
at a time.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from contracts.base import Problem
from services.curation.adapters.shards import read_shard, write_shard
from services.curation.lineage import fate_entry
from services.curation.redaction import Audit
from services.curation.refusals import RefusalLog
from services.curation.rows import Stage, Tally, TracedRow, through
from shared.errors import TransientError

CACHE_KIB = 64 << 10
LOG_PAGES = 16 << 10
"""Written to the log before the database itself is: hashes of ids and contents fall all over it."""
_TABLES = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT);
CREATE TABLE shards (leg TEXT, shard INTEGER, rows INTEGER, digest TEXT, PRIMARY KEY (leg, shard));
CREATE TABLE extents (shard INTEGER PRIMARY KEY, source INTEGER, start INTEGER, line INTEGER,
                      last_line INTEGER, last_number INTEGER, next INTEGER);
CREATE TABLE problems (kind TEXT, problem TEXT);
CREATE TABLE counts (stage TEXT, what TEXT, name TEXT, n INTEGER, PRIMARY KEY (stage, what, name));
CREATE TABLE fates (number INTEGER PRIMARY KEY, entry TEXT);
CREATE TABLE notes (number INTEGER, stage TEXT, row TEXT, reason TEXT, detail TEXT,
                    PRIMARY KEY (number, stage)) WITHOUT ROWID;
CREATE INDEX notes_by_stage ON notes (stage, number);
CREATE TABLE audit (place INTEGER PRIMARY KEY, line TEXT);
CREATE TABLE refusals (place INTEGER PRIMARY KEY, line TEXT, kind TEXT, forced INTEGER);
CREATE TABLE annotations (place INTEGER PRIMARY KEY, line TEXT);
"""
_COUNT = "INSERT INTO counts VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET n = n + excluded.n"


class Workbench:
    """One curation's folder. Use as a context manager: it is locked from entry to exit."""

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder
        self._key = key
        self._db: sqlite3.Connection | None = None

    @property
    def db(self) -> sqlite3.Connection:
        """The database, inside the `with`."""
        if self._db is None:
            raise ValueError("the workbench is not open")
        return self._db

    def __enter__(self) -> Workbench:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = (self.folder / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise TransientError(f"another process curates in {self.folder}") from error
        self._db = self._opened()
        if not self._sound():
            self._db.close()
            self._clear()
            self._db = self._opened()
        return self

    def __exit__(self, *_: object) -> None:
        self.db.close()
        self._db = None
        self._lock.close()

    def _opened(self) -> sqlite3.Connection:
        db = sqlite3.connect(
            self.folder / "ledger.sqlite", isolation_level=None, check_same_thread=False
        )
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        db.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'about'").fetchone():
            db.executescript(f"BEGIN; {_TABLES} COMMIT;")
            db.execute("INSERT INTO about VALUES ('key', ?)", (self._key,))
        return db

    def _sound(self) -> bool:
        """Whether the folder is of this key and its shards are what they were."""
        [key] = self.db.execute("SELECT value FROM about WHERE name = 'key'").fetchone()
        shards = self.db.execute("SELECT leg, shard, digest FROM shards WHERE digest <> ''")
        return key == self._key and all(
            _digest(self._path(leg, shard)) == digest for leg, shard, digest in shards
        )

    def _clear(self) -> None:
        for path in self.folder.iterdir():
            if path.name not in {"lock", "sources"}:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _path(self, leg: str, shard: int) -> Path:
        return self.folder / leg / f"{shard:06}.parquet"

    def done(self, leg: str, shard: int) -> bool:
        """Whether this shard of this leg is committed."""
        query = "SELECT 1 FROM shards WHERE leg = ? AND shard = ?"
        return self.db.execute(query, (leg, shard)).fetchone() is not None

    @contextmanager
    def committing(self, leg: str, shard: int) -> Iterator[None]:
        """What is written to the database inside is committed with the shard, or not at all."""
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.db.execute("INSERT OR IGNORE INTO shards VALUES (?, ?, 0, '')", (leg, shard))
            self.db.execute("COMMIT")
        except BaseException:
            self.db.execute("ROLLBACK")
            raise

    def run(
        self,
        leg: str,
        shard: int,
        stages: Sequence[Stage],
        rows: Iterator[TracedRow],
        audit: Audit,
        refusals: RefusalLog,
        *gather: Callable[[Sequence[TracedRow]], None],
        before: Sequence[Tally] = (),
    ) -> None:
        """Send a shard through `stages` and commit what came of it; done already, do nothing.

        Each `gather` is told the rows that stay: what later legs must know of all rows. `before`
        are the accounts of stages that the rows have been through.
        """
        if self.done(leg, shard):
            return
        with self.committing(leg, shard):
            stream, tallies = through(stages, rows)
            kept = list(stream)
            for told in gather:
                told(kept)
            path = self._path(leg, shard)
            write_shard(path, kept)
            for tally in (*before, *tallies):
                self._keep(tally)
            self._keep_logs(audit, refusals)
            self.db.execute(
                "INSERT INTO shards VALUES (?, ?, ?, ?)", (leg, shard, len(kept), _digest(path))
            )

    def rows(self, leg: str, shard: int) -> Iterator[TracedRow]:
        """The rows that a committed shard kept."""
        return read_shard(self._path(leg, shard))

    def _keep(self, tally: Tally) -> None:
        counted = [("rows", "in", tally.rows_in), ("rows", "out", tally.rows_out)]
        for what, counter in _counters(tally).items():
            counted += [(what, name, n) for name, n in counter.items()]
        self.db.executemany(
            _COUNT,
            [(tally.stage, what, name, n) for what, name, n in counted],
        )
        self.db.executemany(
            "INSERT INTO fates VALUES (?, ?)",
            [(fate.row.number, json.dumps(fate_entry(fate))) for fate in tally.fates],
        )
        self.db.executemany(
            "INSERT OR REPLACE INTO notes VALUES (?, ?, ?, ?, ?)",
            [(t.number, tally.stage, t.row.id, why, detail) for t, why, detail in tally.notes],
        )

    def _keep_logs(self, audit: Audit, refusals: RefusalLog) -> None:
        self.db.executemany(
            "INSERT INTO audit (line) VALUES (?)", [(line,) for line in audit.drained()]
        )
        self.db.executemany(
            "INSERT INTO refusals (line, kind, forced) VALUES (?, ?, ?)",
            [(e.to_json(), e.kind, bool(e.mandates)) for e in refusals.drained()],
        )

    def account(self, stage: str) -> Tally:
        """What a stage did to all shards together."""
        total = Tally(stage)
        counters = _counters(total)
        query = "SELECT what, name, n FROM counts WHERE stage = ?"
        for what, name, n in self.db.execute(query, (stage,)):
            if what == "rows":
                setattr(total, f"rows_{name}", n)
            else:
                counters[what][name] = n
        query = "SELECT row FROM notes WHERE stage = ? ORDER BY number LIMIT 5"
        total.named = tuple(row for (row,) in self.db.execute(query, (stage,)))
        return total

    def note_problem(self, kind: str, problem: Problem, keep: int) -> None:
        """Keep the first `keep` problems of a kind, and count them all."""
        self.add("problems", kind, 1)
        if self.count("problems", kind) <= keep:
            line = problem.model_dump_json()
            self.db.execute("INSERT INTO problems VALUES (?, ?)", (kind, line))

    def problems(self, kind: str) -> tuple[list[Problem], int]:
        """The problems kept of a kind, and how many there are."""
        query = "SELECT problem FROM problems WHERE kind = ? ORDER BY rowid"
        found = [Problem.model_validate_json(p) for (p,) in self.db.execute(query, (kind,))]
        return found, self.count("problems", kind)

    def add(self, what: str, name: str, n: int) -> None:
        """Add to a number that no stage keeps."""
        self.db.execute(_COUNT, (what, what, name, n))

    def count(self, what: str, name: str) -> int:
        """A number that no stage keeps."""
        query = "SELECT n FROM counts WHERE stage = ? AND what = ? AND name = ?"
        found = self.db.execute(query, (what, what, name)).fetchone()
        return int(found[0]) if found else 0

    def lines(self, table: str) -> Iterator[str]:
        """The lines of a log (`audit`, `refusals`, `annotations`) in order."""
        for (line,) in self.db.execute(f"SELECT line FROM {table} ORDER BY place"):
            yield line

    def ledger(self, after: int, last: int) -> dict[int, dict[str, Any]]:
        """Row number → why it went, of the numbers in (after, last]."""
        query = "SELECT number, entry FROM fates WHERE number > ? AND number <= ?"
        return {n: json.loads(entry) for n, entry in self.db.execute(query, (after, last))}

    def notes(self, after: int, last: int) -> dict[int, list[dict[str, str]]]:
        """Row number → what speaks against it, of the numbers in (after, last]."""
        found: dict[int, list[dict[str, str]]] = {}
        query = "SELECT number, stage, reason, detail FROM notes WHERE number > ? AND number <= ?"
        for number, stage, reason, detail in self.db.execute(query, (after, last)):
            note = {"stage": stage, "reason": reason, "detail": detail}
            found.setdefault(number, []).append(note)
        return found


def forget(work: Path, older_than_s: float = 7 * 86_400.0) -> None:
    """Remove the folders under `work` that nobody holds and nobody has opened for so long.

    They are of curations that were killed and never asked for again.
    """
    for lock in work.glob("*/lock"):
        if time.time() - lock.stat().st_mtime < older_than_s:
            continue
        with lock.open("r") as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            shutil.rmtree(lock.parent, ignore_errors=True)


def _counters(tally: Tally) -> dict[str, Counter[str]]:
    return {"dropped": tally.dropped, "changed": tally.changes, "marks": tally.marks}


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return "missing"
