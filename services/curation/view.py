"""How a detector sees a text, with the way back to what was written.

`a%40b.com`, `a&#64;b.com`, full-width digits, typographic dashes and zero-width joiners all hide a
value from a pattern. The view is the text in NFKC with plain dashes, percent, entity and JSON
escapes of printable ASCII decoded, and without format characters; each of its characters knows the
span of the original it stands for.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

_ESCAPE = re.compile(
    r"&#(?:x(?P<hex>[0-9A-Fa-f]{2})|(?P<decimal>\d{2,3}));|\\u00(?P<json>[0-7][0-9A-Fa-f])"
    r"|&(?P<name>commat|period|colon|lowbar|plus|sol);"
)
_NAMED = {"commat": "@", "period": ".", "colon": ":", "lowbar": "_", "plus": "+", "sol": "/"}
_DASHES = re.compile("[\u2010-\u2015\u2212]")
_PLAIN = re.compile(r"[\x00-\x24\x27-\x5b\x5d-\x7f]+")
"""ASCII that begins no escape: read as it is written."""
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
    plain = not ("%" in raw and _PERCENT.search(raw)) and not _ESCAPE.search(raw)
    if plain and (
        raw.isascii()
        or (
            not _DASHES.search(raw)
            and unicodedata.is_normalized("NFKC", raw)
            and not _has_format(raw)
        )
    ):
        return View(raw, raw)
    text: list[str] = []
    starts: list[int] = []
    ends: list[int] = []

    def put(characters: str, start: int, end: int) -> None:
        for normal in unicodedata.normalize("NFKC", characters):
            character = "-" if _DASHES.match(normal) else normal
            if unicodedata.category(character) != "Cf":
                text.append(character)
                starts.append(start)
                ends.append(end)

    at = 0
    while at < len(raw):
        if run := _PLAIN.match(raw, at):
            text.extend(run.group())
            starts.extend(range(at, run.end()))
            ends.extend(range(at + 1, run.end() + 1))
            at = run.end()
        elif match := _PERCENT.match(raw, at):
            at = _put_decoded(match, put)
        elif (escape := _ESCAPE.match(raw, at)) and (character := _unescaped(escape)):
            put(character, at, escape.end())
            at = escape.end()
        else:
            put(raw[at], at, at + 1)
            at += 1
    return View(raw, "".join(text), tuple(starts), tuple(ends))


def _unescaped(match: re.Match[str]) -> str | None:
    """The printable ASCII character behind an escape, but for what JSON itself must escape."""
    if match["name"]:
        return _NAMED[match["name"]]
    code = int(match["decimal"]) if match["decimal"] else int(match["hex"] or match["json"], 16)
    return chr(code) if 0x21 <= code < 0x7F and chr(code) not in '"\\' else None


def _has_format(raw: str) -> bool:
    return any(unicodedata.category(c) == "Cf" for c in set(raw))


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
