"""Training rows that overlap an evaluation set would turn its score into a memory test (C6).

Four detectors, in this order, each against every evaluation set of the job:

- `group`: the row shares its content group with an evaluation item;
- `exact`: the same request in normal form;
- `ngram`: a run of 13 words in common (Brown et al. 2020, appendix C); an item of 5-12 words must
  be contained whole. Runs that more than a tenth of an evaluation set shares are its boilerplate,
  not its content, and don't count;
- `near`: character shingles reach Jaccard 0.8, stricter than among training rows: losing a row
  costs less than a leak.

Only requests are compared, without system prompts. Overlapping training rows are dropped and
counted; evaluation sets are never changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from contracts.data import Row
from services.curation.rows import Stage, Tally, TracedRow, request_text
from shared.similarity.minhash import NearDuplicates
from shared.similarity.text import normal_form, word_ngrams

NGRAM = 13
SHORTEST = 5
"""An item below this many words is matched exactly only."""
BOILERPLATE_SHARE = 0.1
SIMILARITY = 0.8


@dataclass(slots=True)
class _SetIndex:
    """One evaluation set, indexed by all that could leak."""

    groups: set[str] = field(default_factory=set)
    exact: dict[str, str] = field(default_factory=dict)
    ngrams: dict[tuple[str, ...], str] = field(default_factory=dict)
    lengths: tuple[int, ...] = ()
    near: NearDuplicates = field(default_factory=lambda: NearDuplicates(SIMILARITY))


def _index(rows: Iterable[Row], threshold: float) -> _SetIndex:
    index = _SetIndex(near=NearDuplicates(threshold))
    frequency: Counter[tuple[str, ...]] = Counter()
    items = 0
    for row in rows:
        items += 1
        normal = normal_form(request_text(row))
        if row.group is not None:
            index.groups.add(row.group)
        if normal not in index.exact:
            index.exact[normal] = row.id
            index.near.add(row.id, normal)
        tokens = normal.split()
        if len(tokens) >= SHORTEST:
            grams = set(word_ngrams(tokens, min(NGRAM, len(tokens))))
            frequency.update(grams)
            for gram in grams:
                index.ngrams.setdefault(gram, row.id)
    common = max(2, int(items * BOILERPLATE_SHARE))
    for gram, count in frequency.items():
        if count > common:
            del index.ngrams[gram]
    index.lengths = tuple(sorted({len(gram) for gram in index.ngrams}))
    return index


def _overlap(row: Row, index: _SetIndex) -> tuple[str, str] | None:
    """(detector, what it matched), or None."""
    if row.group is not None and row.group in index.groups:
        return "group", f"shares group {row.group}"
    normal = normal_form(request_text(row))
    if normal in index.exact:
        return "exact", f"is {index.exact[normal]}"
    tokens = normal.split()
    for size in index.lengths:
        gram = next(filter(index.ngrams.__contains__, word_ngrams(tokens, size)), None)
        if gram is not None:
            return "ngram", f"shares {size} words in a row with {index.ngrams[gram]}"
    found = index.near.find(normal)
    if found:
        return "near", f"is close to {found[0]} (Jaccard {found[1]:.2f})"
    return None


def contamination_sweep(
    evaluation: Mapping[str, Sequence[Row]], threshold: float = SIMILARITY
) -> Stage:
    """Drop training rows that overlap any set of `evaluation` (set name → rows).

    The tally's reasons read `heldout:exact`.
    """
    indexes = {name: _index(rows, threshold) for name, rows in evaluation.items()}

    def apply(rows: Iterable[TracedRow], tally: Tally) -> Iterator[TracedRow]:
        for traced in rows:
            for name, index in indexes.items():
                found = _overlap(traced.row, index)
                if found:
                    tally.drop(traced, f"{name}:{found[0]}", found[1])
                    break
            else:
                yield traced

    return Stage("contamination", apply)
