"""Duplicates and leaks in other words: what shingles cannot see, sentence vectors can (C5, C6, F3).

Both stages compare only texts that name the same numbers: `convert 5 km` and `convert 7 km` are
near in meaning and are two lessons. Vectors are computed in batches; rows keep their order.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice

import numpy as np

from contracts.data import Row
from services.curation.rows import Stage, Tally, TracedRow, content_text, request_text
from shared.similarity.meaning import Embedder, Meanings
from shared.similarity.text import numbers

_BATCH = 256


def paraphrase_sweep(
    evaluation: Mapping[str, Sequence[Row]], embedder: Embedder, threshold: float
) -> Stage:
    """Drop training rows whose request says what an evaluation item asks, in other words."""
    indexes = {name: _indexed(items, embedder) for name, items in evaluation.items()}

    def apply(rows: Iterable[TracedRow], tally: Tally) -> Iterator[TracedRow]:
        for traced, text, vector in _embedded(rows, embedder, request_text):
            for name, index in indexes.items():
                near = index.get(numbers(text))
                found = near.closest(vector, threshold) if near else None
                if found:
                    tally.drop(
                        traced, f"{name}:paraphrase", f"means {found[0]} (cosine {found[1]:.2f})"
                    )
                    break
            else:
                yield traced

    return Stage("paraphrases", apply)


def semantic_duplicates(db: sqlite3.Connection, embedder: Embedder, threshold: float) -> Stage:
    """Drop rows that say, in other words, what an earlier row says.

    The vectors of the rows that stay are kept in `db`, and in memory while the stage works: the
    search is exact, and looks at all of them.
    """
    db.execute("CREATE TABLE IF NOT EXISTS meanings (apart TEXT, key TEXT, vector BLOB)")
    alike: dict[str, Meanings] = {}
    for apart, key, vector in db.execute("SELECT * FROM meanings ORDER BY rowid"):
        alike.setdefault(apart, Meanings()).add(key, np.frombuffer(vector, np.float32))

    def apply(rows: Iterable[TracedRow], tally: Tally) -> Iterator[TracedRow]:
        for traced, text, vector in _embedded(rows, embedder, content_text):
            apart = f"{traced.row.desirable} {' '.join(numbers(text))}"
            index = alike.setdefault(apart, Meanings())
            found = index.closest(vector, threshold)
            if found is None:
                index.add(traced.row.id, vector)
                kept = apart, traced.row.id, vector.astype(np.float32).tobytes()
                db.execute("INSERT INTO meanings VALUES (?, ?, ?)", kept)
                yield traced
            else:
                tally.drop(traced, "same_meaning", f"of {found[0]} (cosine {found[1]:.2f})")

    return Stage("semantic_duplicates", apply)


def _indexed(items: Sequence[Row], embedder: Embedder) -> dict[tuple[str, ...], Meanings]:
    texts = [request_text(row) for row in items]
    found: dict[tuple[str, ...], Meanings] = {}
    for row, text, vector in zip(items, texts, embedder.embed(texts), strict=True):
        found.setdefault(numbers(text), Meanings()).add(row.id, vector)
    return found


def _embedded(
    rows: Iterable[TracedRow], embedder: Embedder, text_of: Callable[[Row], str]
) -> Iterator[tuple[TracedRow, str, np.ndarray]]:
    stream = iter(rows)
    while batch := list(islice(stream, _BATCH)):
        texts = [text_of(traced.row) for traced in batch]
        yield from zip(batch, texts, embedder.embed(texts), strict=True)
