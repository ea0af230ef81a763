"""Labels that contradict each other: noise that training would amplify (C7, F1).

Two signals. *Contradiction*: the same request, in normal form and with the same tools, has
different answers, where answers are meant to agree: calls, and texts of at most twelve words.
*Outvoted*: where answers are a few labels, a row whose most similar requests all carry one other
label. Longer free text may answer one request in many ways, and judged rows are meant to differ, so
neither is looked at.

Noise is reported and stays, or goes with `curation.noisy_rows: drop`: of a contradiction all rows
go, since nobody knows which is right.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal
from zlib import crc32

import numpy as np

from contracts.data import Row
from services.curation.rows import Stage, Tally, TracedRow, request_text
from shared.doctrine.volatility import is_tool_call
from shared.similarity.text import normal_form, shingles, words

SHORT = 12
FEW_LABELS = 12
NEIGHBOURS = 5
NEAR = 0.35
"""A neighbour whose shingles are less similar than this has no vote."""
_MOST_ROWS = 10_000
"""Only the first rows vote on each other; contradictions are found in all."""


class Answers:
    """What every comparable row answers, on disk: hashes of request and answer, and the row's id.

    For the vote the texts of the first rows are kept too, so that memory has an end.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        db.execute(
            "CREATE TABLE IF NOT EXISTS answers"
            " (number INTEGER PRIMARY KEY, request BLOB, answer BLOB, row TEXT)"
        )
        db.execute("CREATE INDEX IF NOT EXISTS answers_by_request ON answers (request, number)")
        db.execute("CREATE TABLE IF NOT EXISTS voters (number INTEGER PRIMARY KEY, row TEXT)")
        db.execute("CREATE TABLE IF NOT EXISTS outvoted (number INTEGER PRIMARY KEY, label TEXT)")

    def note(self, rows: Iterable[TracedRow]) -> None:
        """Remember what each row answers."""
        noted = [traced for traced in rows if _comparable(traced.row)]
        self._db.executemany("INSERT INTO answers VALUES (?, ?, ?, ?)", map(_noted, noted))
        self._db.executemany(
            "INSERT INTO voters VALUES (?, ?)",
            [
                (traced.number, traced.row.model_dump_json(exclude_defaults=True))
                for traced in noted
                if traced.number <= _MOST_ROWS
            ],
        )

    def vote(self) -> None:
        """Let the first rows vote on each other, once all are noted."""
        query = "SELECT count(*), count(DISTINCT answer) FROM answers WHERE number <= ?"
        count, labels = self._db.execute(query, (_MOST_ROWS,)).fetchone()
        if labels > _most_labels(count):
            return  # answers are no labels: no text needs to be read
        listed = self._db.execute("SELECT number, row FROM voters ORDER BY number").fetchall()
        rows = [Row.model_validate_json(row) for _, row in listed]
        self._db.execute("DELETE FROM outvoted")
        self._db.executemany(
            "INSERT INTO outvoted VALUES (?, ?)",
            [(listed[i][0], label) for i, label in outvoted(rows).items()],
        )

    def against(self, traced: TracedRow) -> tuple[str, str] | None:
        """(reason, detail) of what speaks against a row."""
        query = (
            "SELECT other.row FROM answers AS own JOIN answers AS other"
            " ON other.request = own.request AND other.answer <> own.answer"
            " WHERE own.number = ? ORDER BY other.number LIMIT 1"
        )
        if found := self._db.execute(query, (traced.number,)).fetchone():
            return "contradiction", f"{found[0]} answers otherwise"
        query = "SELECT label FROM outvoted WHERE number = ?"
        if found := self._db.execute(query, (traced.number,)).fetchone():
            return "outvoted", f"its {NEIGHBOURS} nearest requests say {found[0][:60]!r}"
        return None


def _noted(traced: TracedRow) -> tuple[int, bytes, bytes, str]:
    row = traced.row
    tools = json.dumps(row.tools, sort_keys=True)
    turns = "\n".join(f"{m.role}: {normal_form(m.content)}" for m in row.messages)
    return traced.number, _hash(f"{turns}\n{tools}"), _hash(_answer(row)), row.id


def noise(policy: Literal["report", "drop"], answers: Answers) -> Stage:
    """Report or drop rows whose label others contradict."""

    def apply(rows: Iterable[TracedRow], tally: Tally) -> Iterator[TracedRow]:
        for traced in rows:
            reason = answers.against(traced)
            if reason is None:
                yield traced
            elif policy == "drop":
                tally.drop(traced, *reason)
            else:
                tally.changes[f"reported:{reason[0]}"] += 1
                tally.notes.append((traced, *reason))
                yield traced

    def warn(total: Tally) -> list[str]:
        if not (reported := total.changes.total()):
            return []
        return [
            f"label noise: {reported} of {total.rows_in} rows are contradicted "
            f"({', '.join(total.named)}); look at them, or set curation.noisy_rows to drop"
        ]

    return Stage("label_noise", apply, warn)


def outvoted(rows: Sequence[Row]) -> dict[int, str]:
    """Index of each comparable row whose nearest requests agree on another label → that label."""
    labels = [_answer(row) for row in rows]
    if not rows or len(set(labels)) > _most_labels(len(rows)):
        return {}
    sets = [_hashed_shingles(request_text(row)) for row in rows]
    sizes = np.array([len(grams) for grams in sets])
    grams, members = np.concatenate(sets), np.repeat(np.arange(len(rows)), sizes)
    order = np.argsort(grams, kind="stable")
    grams, members = grams[order], members[order]
    found: dict[int, str] = {}
    for i, own in enumerate(sets):
        first, last = np.searchsorted(grams, own), np.searchsorted(grams, own, side="right")
        holders = [members[a:b] for a, b in zip(first, last, strict=True)]
        shared = np.bincount(np.concatenate(holders), minlength=len(rows))
        similar = shared / (sizes[i] + sizes - shared)
        similar[i] = 0.0
        best = np.argsort(-similar, kind="stable")[:NEIGHBOURS]
        best = best[similar[best] >= NEAR]
        votes = {labels[j] for j in best}
        if len(best) == NEIGHBOURS and len(votes) == 1 and labels[i] not in votes:
            found[i] = min(votes)
    return found


def _most_labels(rows: int) -> int:
    """More answers than this among so many rows are no labels."""
    return min(FEW_LABELS, rows // 5)


def _hashed_shingles(text: str) -> np.ndarray:
    """The shingles of a text as 32-bit numbers, sorted: a set takes fifty times as much."""
    return np.unique(np.array([crc32(gram.encode()) for gram in shingles(text)], dtype=np.uint32))


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _comparable(row: Row) -> bool:
    if row.desirable is not None or row.rejected is not None or row.target is None:
        return False
    return is_tool_call(row.target) or len(words(row.target)) <= SHORT


def _answer(row: Row) -> str:
    target = row.target or ""
    try:
        return json.dumps(json.loads(target), sort_keys=True)
    except ValueError:
        return normal_form(target)
