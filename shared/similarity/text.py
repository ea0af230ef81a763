"""When are two texts the same? Normal form, words, shingles and n-grams.

Comparison never looks at case, punctuation, compatibility forms or spacing: a leaked row that was
re-capitalised is still leaked.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

_NOT_WORD = re.compile(r"[\W_]+")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


def normal_form(text: str) -> str:
    """NFKC, case-folded, every run of punctuation or space as one space."""
    return _NOT_WORD.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


def words(text: str) -> list[str]:
    """The words of the normal form."""
    return normal_form(text).split()


def numbers(text: str) -> tuple[str, ...]:
    """The numbers a text names, sorted. Texts that differ here ask for different things."""
    return tuple(sorted(_NUMBER.findall(unicodedata.normalize("NFKC", text))))


def shingles(text: str, size: int = 5) -> list[str]:
    """Distinct character n-grams of the normal form, sorted; a shorter text is its own shingle."""
    return sorted(shingle_set(text, size))


def shingle_set(text: str, size: int = 5) -> set[str]:
    """The shingles of a text in no order, where none is asked for."""
    normal = normal_form(text)
    return {normal[i : i + size] for i in range(max(1, len(normal) - size + 1))}


def word_ngrams(tokens: list[str], size: int) -> Iterator[tuple[str, ...]]:
    """Successive runs of `size` words."""
    return (tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1))
