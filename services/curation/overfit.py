"""What a model could learn instead of the behaviour: one style, one length, one scary word (C7).

Each check reads the rows that will train and says a sentence for the card. None drops a row.
Sources: the composition table of the specification, 'style overfit' and 'hyper-conservatism'.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Sequence
from statistics import fmean, pstdev

from contracts.data import Row
from services.curation.refusals import is_refusal, keywords
from shared.similarity.text import word_ngrams, words

SAMPLE = 2000
"""Rows looked at; shares of a larger dataset are of so many, drawn by hash."""
FEWEST = 20
"""Rows below which a check has no evidence."""
OPENING_CEILING = 0.5
PHRASE_CEILING = 0.3
PHRASE_WORDS = 6
EVEN_LENGTHS = 0.1
"""Standard deviation over mean of answer lengths, in words, below which all are one length."""
LONGER_CEILING = 0.8
"""Share of pairs whose better answer is the longer one."""
KEYWORD_SHARE = 0.4
FEWEST_REFUSALS = 5


def overfit_warnings(rows: Sequence[Row]) -> list[str]:
    """A sentence for every way in which `rows` teach more, or less, than they should."""
    return [*style(rows), *lengths(rows), *hyper_conservatism(rows)]


class Sample:
    """The rows these checks look at: all of a small dataset, a draw by hash of a large one."""

    def __init__(self, size: int = SAMPLE) -> None:
        self._size = size
        self._drawn: list[tuple[int, int, Row]] = []
        self._offered = 0

    def offer(self, row: Row) -> None:
        """One row of the dataset."""
        self._offered += 1
        drawn = hashlib.blake2b(row.id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        entry = -int.from_bytes(drawn), self._offered, row
        if len(self._drawn) < self._size:
            heapq.heappush(self._drawn, entry)
        else:
            heapq.heappushpop(self._drawn, entry)

    def rows(self) -> list[Row]:
        """The drawn rows, in the order they were offered."""
        return [row for _, _, row in sorted(self._drawn, key=lambda drawn: drawn[1])]


def style(rows: Sequence[Row]) -> list[str]:
    """Free-text answers that open alike, or share a phrase."""
    texts = [words(r.target or "") for r in rows if _free_text(r)]
    if len(texts) < FEWEST:
        return []
    said = []
    opening, count = Counter(tuple(t[:3]) for t in texts).most_common(1)[0]
    if count / len(texts) > OPENING_CEILING:
        said.append(
            f"style overfit: {count / len(texts):.0%} of answers open with {' '.join(opening)!r}"
        )
    phrases: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        phrases.update(set(word_ngrams(text[3:], PHRASE_WORDS)))
    if phrases:
        phrase, count = phrases.most_common(1)[0]
        if count / len(texts) > PHRASE_CEILING:
            said.append(
                f"style overfit: {count / len(texts):.0%} of answers hold {' '.join(phrase)!r}"
            )
    return said


def lengths(rows: Sequence[Row]) -> list[str]:
    """Answers all of one length; better answers that are nearly always the longer ones."""
    said = []
    sizes = [len(words(r.target or "")) for r in rows if _free_text(r)]
    if len(sizes) >= FEWEST and (mean := fmean(sizes)) >= 5 and pstdev(sizes) / mean < EVEN_LENGTHS:
        said.append(
            f"length overfit: answers have {mean:.0f} words, give or take {pstdev(sizes):.1f}; "
            "the model will learn the length"
        )
    pairs = [(len(words(r.target or "")), len(words(r.rejected))) for r in rows if r.rejected]
    longer = sum(better > worse for better, worse in pairs)
    if len(pairs) >= FEWEST and longer / len(pairs) > LONGER_CEILING:
        said.append(
            f"length overfit: the better answer is the longer one in {longer / len(pairs):.0%} of "
            "pairs; preference tuning will learn to be long"
        )
    return said


def hyper_conservatism(rows: Sequence[Row]) -> list[str]:
    """Words that refused requests share and no answered request has: the word will be refused."""
    refused = [r for r in rows if is_refusal(r) and r.desirable is not False]
    if len(refused) < FEWEST_REFUSALS:
        return []
    refused_ids = {r.id for r in refused}
    answered = keywords([r for r in rows if r.id not in refused_ids])
    least = max(2, round(KEYWORD_SHARE * len(refused)))
    alone = sorted(
        (word for word, count in keywords(refused).items()
         if count >= least and answered.get(word, 0) < max(1, count // 4)),
    )  # fmt: skip
    if not alone:
        return []
    listed = ", ".join(alone[:8])
    return [
        f"hyper-conservatism: {listed} stand in refused requests and hardly in answered ones; "
        "add benign requests that use these words"
    ]


def _free_text(row: Row) -> bool:
    text = (row.target or "").lstrip()
    return bool(text) and text[0] not in "{[" and row.desirable is not False
