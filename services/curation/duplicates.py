"""The same row twice teaches nothing and skews every statistic: keep the first (C5).

*Exact* compares the normal form of the turns, the tools and the answers with their judgement.
*Near* compares character shingles by Jaccard similarity, and only among rows that name the same
numbers and are judged alike: `factorial of 5` and `factorial of 7` are two different lessons
however alike they look, and so are a desirable answer and an undesirable one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from services.curation.rows import Stage, Tally, TracedRow, content_text
from shared.similarity.minhash import NearDuplicates
from shared.similarity.text import normal_form, numbers


class FirstSeen(Protocol):
    """Remembers what came with a key first."""

    def setdefault(self, key: bytes, value: str, /) -> str:
        """The value first given for `key`."""
        ...


def content_hash(traced: TracedRow) -> bytes:
    """Hash of the normal form of the turns with their roles, the tools and the exact answers."""
    row = traced.row
    content = json.dumps(
        [
            [(m.role, normal_form(m.content)) for m in row.messages],
            row.tools,
            row.target,
            row.rejected,
            row.desirable,
        ],
        sort_keys=True,
    )
    return hashlib.blake2b(content.encode(), digest_size=16).digest()


def exact_duplicates(first: FirstSeen | None = None) -> Stage:
    """Drop rows whose normalised content was seen; the fate names the row that stays.

    `first` remembers content hash → row id for longer than a shard; by default a dictionary.
    """
    seen: FirstSeen = {} if first is None else first

    def apply(rows: Iterable[TracedRow], tally: Tally) -> Iterator[TracedRow]:
        for traced in rows:
            kept = seen.setdefault(content_hash(traced), traced.row.id)
            if kept == traced.row.id:
                yield traced
            else:
                tally.drop(traced, "exact_duplicate", f"of {kept}")

    return Stage("exact_duplicates", apply)


def compared(traced: TracedRow) -> tuple[str, str]:
    """The text that near duplicates share, and what keeps rows apart however alike they look."""
    text = content_text(traced.row)
    return text, f"{traced.row.desirable} {' '.join(numbers(text))}"


def near_duplicates(
    threshold: float,
    index: NearDuplicates | None = None,
    shared_keys: Callable[[int], list[int]] | None = None,
) -> Stage:
    """Drop rows whose shingles reach `threshold` Jaccard similarity with an earlier row.

    `index` remembers the rows that stay; by default in memory. `shared_keys` gives the band keys of
    a row, by its number, that another row has too, where that is known: a row with none is unlike
    all others.
    """
    alike = NearDuplicates(threshold) if index is None else index

    def apply(rows: Iterable[TracedRow], tally: Tally) -> Iterator[TracedRow]:
        for traced in rows:
            keys = shared_keys(traced.number) if shared_keys else None
            if keys == []:
                yield traced
                continue
            found = alike.find_or_add(traced.row.id, *compared(traced), keys)
            if found is None:
                yield traced
            else:
                tally.drop(traced, "near_duplicate", f"of {found[0]} (Jaccard {found[1]:.2f})")

    return Stage("near_duplicates", apply)
