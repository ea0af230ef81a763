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
from services.curation.vectors import Near, StoredMeanings
from shared.errors import Misconfigured
from shared.similarity.meaning import Embedder, Meanings
from shared.similarity.text import numbers

_BATCH = 256


def by_meaning(
    embedder: Embedder | None, threshold: float | None, stage: Callable[[Embedder, float], Stage]
) -> list[Stage]:
    """The stage, where the job gives a threshold for it. Raises Misconfigured."""
    if threshold is None:
        return []
    if embedder is None:
        raise Misconfigured("the job compares by meaning, and no embedder is here")
    return [stage(embedder, threshold)]


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


def semantic_duplicates(
    db: sqlite3.Connection,
    embedder: Embedder,
    threshold: float,
    stored: StoredMeanings | None = None,
) -> Stage:
    """Drop rows that say, in other words, what an earlier row says.

    The vectors of the rows that stay are in `db` (`stored` says how): a batch is compared with all
    of them, block by block, and then its rows with each other in their order.
    """
    index = StoredMeanings(db) if stored is None else stored

    def apply(rows: Iterable[TracedRow], tally: Tally) -> Iterator[TracedRow]:
        stream = iter(rows)
        while batch := list(islice(stream, _BATCH)):
            found = _nearest(batch, embedder, threshold, index)
            for traced, near in zip(batch, found, strict=True):
                if near is None:
                    yield traced
                else:
                    tally.drop(traced, "same_meaning", f"of {near[0]} (cosine {near[1]:.2f})")

    return Stage("semantic_duplicates", apply)


def _nearest(
    batch: Sequence[TracedRow], embedder: Embedder, threshold: float, index: StoredMeanings
) -> list[Near]:
    """What each row of a batch repeats; rows that repeat nothing are in the index afterwards."""
    texts = [content_text(traced.row) for traced in batch]
    vectors = embedder.embed(texts)
    groups: dict[str, list[int]] = {}
    for place, (traced, text) in enumerate(zip(batch, texts, strict=True)):
        groups.setdefault(f"{traced.row.desirable} {' '.join(numbers(text))}", []).append(place)
    found: list[Near] = [None] * len(batch)
    for apart, places in groups.items():
        stored = index.closest(apart, vectors[places], threshold)
        fresh, kept = Meanings(), []
        for place, before in zip(places, stored, strict=True):
            beside = fresh.closest(vectors[place], threshold)
            near = beside if before is None or (beside and beside[1] > before[1]) else before
            found[place] = near
            if near is None:
                fresh.add(batch[place].row.id, vectors[place])
                kept.append(place)
        if kept:
            index.add(apart, [batch[place].row.id for place in kept], vectors[kept])
    return found


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
