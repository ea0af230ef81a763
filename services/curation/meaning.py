"""Duplicates and leaks in other words: what shingles cannot see, sentence vectors can (C5, C6, F3).

Both stages compare only texts that name the same numbers: `convert 5 km` and `convert 7 km` are
near in meaning and are two lessons. Vectors are computed in batches; rows keep their order.
"""

from __future__ import annotations

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

    def apply(rows: Iterable[TracedRow], tally: Tally) -> Iterator[TracedRow]:
        indexes = {name: _indexed(items, embedder) for name, items in evaluation.items()}
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


def semantic_duplicates(embedder: Embedder, threshold: float) -> Stage:
    """Drop rows that say, in other words, what an earlier row says."""

    def apply(rows: Iterable[TracedRow], tally: Tally) -> Iterator[TracedRow]:
        alike: dict[tuple[tuple[str, ...], bool | None], Meanings] = {}
        for traced, text, vector in _embedded(rows, embedder, content_text):
            index = alike.setdefault((numbers(text), traced.row.desirable), Meanings())
            found = index.closest(vector, threshold)
            if found is None:
                index.add(traced.row.id, vector)
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
