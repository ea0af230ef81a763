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
_ASCII_WORDS = bytes(
    ord(chr(code).lower()) if chr(code).isalnum() and code < 128 else 32 for code in range(256)
)
"""Of ASCII: letters in lower case and digits stay, all else is a space."""


def normal_form(text: str) -> str:
    """NFKC, case-folded, every run of punctuation or space as one space."""
    if text.isascii():
        return b" ".join(text.encode().translate(_ASCII_WORDS).split()).decode()
    return _NOT_WORD.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


def words(text: str) -> list[str]:
    """The words of the normal form."""
    return normal_form(text).split()


def numbers(text: str) -> tuple[str, ...]:
    """The numbers a text names, sorted. Texts that differ here ask for different things."""
    plain = text if text.isascii() else unicodedata.normalize("NFKC", text)
    return tuple(sorted(_NUMBER.findall(plain)))


def shingles(text: str, size: int = 5) -> list[str]:
    """Distinct character n-grams of the normal form, sorted; a shorter text is its own shingle."""
    return sorted(shingle_set(text, size))


def shingle_set(text: str, size: int = 5) -> set[str]:
    """The shingles of a text in no order, where none is asked for."""
    normal = normal_form(text)
    return {normal[i : i + size] for i in range(max(1, len(normal) - size + 1))}


def word_ngrams(tokens: list[str], size: int) -> Iterator[tuple[str, ...]]:
    """Successive runs of `size` words."""
    return zip(*(tokens[i:] for i in range(size)), strict=False)
