"""Which answers become rows: teacher phrases go, values survive, nothing foreign comes in (S2).

A filter is a pure function of the seed and the answer. It gives the cleaned request or the reason
for which the answer is rejected; reasons are counted, never hidden. The phrase list is data
(`prefixes.json`) and can be replaced by a setting.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from contracts.data import Row
from services.synthesis.prompts import last_request
from shared.similarity.text import normal_form, numbers, words

SHORTEST_RATIO, LONGEST_RATIO = 0.4, 2.5
"""Words of the paraphrase over words of the seed's request."""
KEPT_CONTENT = 0.4
"""Share of the seed's content words, by their first four letters, that a paraphrase must keep."""


@dataclass(frozen=True, slots=True)
class Phrases:
    """Teacher openings: stripped where a request follows, rejected where a refusal does."""

    strip: tuple[str, ...]
    reject: tuple[str, ...]

    @classmethod
    def load(cls, path: Path | None = None) -> Phrases:
        """The packaged list, or the file at `path`."""
        packaged = resources.files("services.synthesis").joinpath("prefixes.json")
        data = json.loads((path or packaged).read_text("utf-8"))
        return cls(tuple(data["strip"]), tuple(data["reject"]))

    def stripped(self, answer: str) -> str:
        """The answer without teacher openings."""
        return without_openings(answer, self)

    def refuses(self, answer: str) -> bool:
        """Whether the answer opens as a refusal does."""
        return _opens_with(answer.strip(), self.reject)


@dataclass(frozen=True, slots=True)
class Accepted:
    """A usable request."""

    text: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """Why an answer is no row: a word that counts are kept under."""

    reason: str


def judge(seed: Row, answer: str, phrases: Phrases) -> Accepted | Rejected:
    """Clean and check one answer against its seed."""
    request = last_request(seed) or ""
    text = without_openings(answer, phrases)
    if _opens_with(text, phrases.reject) or _opens_with(answer.strip(), phrases.reject):
        return Rejected("teacher_refusal")
    if not text:
        return Rejected("empty")
    if any(mark in text and mark not in request for mark in ("{", "```", "\n\n")):
        return Rejected("not_a_request")
    if normal_form(text) == normal_form(request):
        return Rejected("identical")
    ratio = len(words(text)) / max(1, len(words(request)))
    if not SHORTEST_RATIO <= ratio <= LONGEST_RATIO:
        return Rejected("length")
    if language(text) != language(request):
        return Rejected("language_drift")
    if _plain_numbers(text) != _plain_numbers(request):
        return Rejected("numbers_changed")
    if missing_values(seed, text):
        return Rejected("value_lost")
    if kept_content(request, text) < KEPT_CONTENT:
        return Rejected("meaning_drift")
    return Accepted(text)


def without_openings(answer: str, phrases: Phrases) -> str:
    """The answer without teacher openings, wrapping quotes and an 'introduction:' line."""
    text = answer.strip()
    previous = None
    while text != previous:
        previous = text
        for phrase in sorted(phrases.strip, key=len, reverse=True):
            rest = re.match(rf"{re.escape(phrase)}\b[^\w\n]*?(?:[,!.:\-–—]+|\n)\s*", text, re.I)
            intro = re.match(rf"{re.escape(phrase)}\b[^:\n]{{0,60}}:\s*", text, re.I)
            match = intro or rest
            if match:
                text = text[match.end() :].strip()
        if len(text) > 1 and (text[0], text[-1]) in {('"', '"'), ("'", "'"), ("“", "”")}:
            text = text[1:-1].strip()
    return text


def kept_content(request: str, text: str) -> float:
    """Share of the request's content word stems that `text` names too; 1 when it has none."""
    before, after = (
        {w[:4] for w in words(t) if len(w) > 2 and w not in _stopwords()["en"]}
        for t in (request, text)
    )
    return len(before & after) / len(before) if before else 1.0


def missing_values(seed: Row, text: str) -> list[str]:
    """Argument values of the target that the seed's request names and `text` does not."""
    before, after = normal_form(last_request(seed) or ""), normal_form(text)
    return [
        value
        for value in dict.fromkeys(target_values(seed.target or ""))
        if _contains(before, normal_form(value)) and not _contains(after, normal_form(value))
    ]


def target_values(target: str) -> Iterator[str]:
    """Every leaf value of a JSON target; calls written as `f(x='a')` give their literals."""
    try:
        yield from _leaf_values(json.loads(target))
    except ValueError:
        for quoted, number in re.findall(r"['\"]([^'\"]+)['\"]|(-?\d+(?:\.\d+)?)", target):
            yield quoted or number


def _leaf_values(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key != "name" or not {"arguments", "parameters"} & value.keys():
                yield from _leaf_values(item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaf_values(item)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


def _contains(text: str, value: str) -> bool:
    return bool(value) and f" {value} " in f" {text} "


def _plain_numbers(text: str) -> Counter[str]:
    return Counter(n.replace(",", "").rstrip(".") for n in numbers(text))


def _opens_with(text: str, phrases: tuple[str, ...]) -> bool:
    folded = text.casefold().replace("’", "'")
    return any(folded.startswith(phrase.casefold()) for phrase in phrases)


@cache
def _stopwords() -> dict[str, frozenset[str]]:
    text = resources.files("services.synthesis").joinpath("stopwords.json").read_text("utf-8")
    return {code: frozenset(listed) for code, listed in json.loads(text).items()}


def language(text: str) -> str:
    """The dominant script, and for Latin text the language whose function words lead clearly.

    Latin text without clear evidence counts as English, the language of the prompt.
    """
    scripts = Counter(unicodedata.name(c, "?").split()[0] for c in text if c.isalpha())
    script = scripts.most_common(1)[0][0] if scripts else "LATIN"
    if script != "LATIN":
        return script
    tokens = words(text)
    hits = {code: sum(t in listed for t in tokens) for code, listed in _stopwords().items()}
    best = max(hits, key=lambda code: hits[code])
    return best if hits[best] >= 2 and hits[best] > 2 * hits["en"] else "en"
