"""How a detector sees a text, with the way back to what was written.

`a%40b.com`, full-width digits and zero-width joiners all hide a value from a pattern. The view is
the text in NFKC, percent-decoded and without format characters; each of its characters knows the
span of the original it stands for.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

_PERCENT = re.compile(r"(?:%[0-9A-Fa-f]{2})+")


@dataclass(frozen=True, slots=True)
class View:
    """A text as detectors read it. `starts` and `ends` are None when it is the original."""

    raw: str
    text: str
    starts: tuple[int, ...] | None = None
    ends: tuple[int, ...] | None = None

    def raw_span(self, start: int, end: int) -> tuple[int, int]:
        """The span of the original behind `text[start:end]`."""
        if self.starts is None or self.ends is None:
            return start, end
        return self.starts[start], self.ends[end - 1]


def view_of(raw: str) -> View:
    """The view of `raw`; the common case, plain text, costs no copy."""
    if "%" not in raw and unicodedata.is_normalized("NFKC", raw) and not _has_format(raw):
        return View(raw, raw)
    text: list[str] = []
    starts: list[int] = []
    ends: list[int] = []

    def put(characters: str, start: int, end: int) -> None:
        for character in unicodedata.normalize("NFKC", characters):
            if unicodedata.category(character) != "Cf":
                text.append(character)
                starts.append(start)
                ends.append(end)

    at = 0
    while at < len(raw):
        match = _PERCENT.match(raw, at)
        if match:
            at = _put_decoded(match, put)
        else:
            put(raw[at], at, at + 1)
            at += 1
    return View(raw, "".join(text), tuple(starts), tuple(ends))


def _has_format(raw: str) -> bool:
    return not raw.isascii() and any(unicodedata.category(c) == "Cf" for c in raw)


def _put_decoded(match: re.Match[str], put: Callable[[str, int, int], None]) -> int:
    """Decode one run of percent escapes; a run that is no UTF-8 stays as written."""
    try:
        decoded = unquote_to_bytes(match.group()).decode()
    except UnicodeDecodeError:
        for i in range(match.start(), match.end()):
            put(match.string[i], i, i + 1)
        return match.end()
    at = match.start()
    for character in decoded:
        width = 3 * len(character.encode())
        put(character, at, at + width)
        at += width
    return match.end()
