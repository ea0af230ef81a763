"""Rows that name people: a signal for whoever reviews the dataset, never a block and no redaction.

A name looks like any other capitalised word, and a rule that took them all out would take out
cities and products as well. So names are found where their surroundings say so (a title, 'my name
is', a closing) or where a common given name is followed by a capitalised word; the row is noted,
the card says how many there are, and the job's owner decides (`curation.private_terms`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import resources

from services.curation.redaction import Span
from services.curation.rows import Stage, Tally, TracedRow, content_text

_WORD = r"[^\W\d_a-zß-öø-ÿ][^\W\d_]*(?:['’-][^\W\d_]+)*"
_NAME = rf"{_WORD}(?: (?:(?:van|von|de|da|del|bin|al) )?{_WORD}){{0,3}}"
_TITLED = re.compile(
    r"\b(?:Mr|Mrs|Ms|Miss|Dr|Prof|Professor|Herr|Frau|Madame|Monsieur|Señora?)\b\.? "
    rf"(?P<name>{_NAME})"
)
_INTRODUCED = re.compile(
    r"(?:\b(?i:my name is|(?:is|was) (?:called|named)|signed by|attn|customer|patient|passenger"
    r"|client|guest|tenant|employee)\b|\"(?:full_?|first_?|last_?)?name\"|(?i:\bname))"
    rf"\s*:?\s*\"?(?P<name>{_NAME})"
)
_GREETED = re.compile(
    rf"(?:^|\n|[.!?] )(?:Dear|Hi|Hello|Thanks|Cheers|(?:Kind |Best |Warm )?[Rr]egards|Sincerely)"
    rf",?\s(?P<name>{_NAME})(?=[,.!\n]|$)"
)
_SAID = re.compile(
    rf"\b(?i:i am|i'm|this is|contact|cc:|bcc:|between|from:|to:) (?P<name>{_WORD} {_NAME})"
)
_TITLES = frozenset({"mr", "mrs", "ms", "miss", "dr", "prof", "professor", "herr", "frau"})
_ANY = re.compile(_NAME)
_LETTERS = re.compile(r"[^\W\d_]+")
_CUES = (
    (_TITLED, _TITLES | {"madame", "monsieur", "señor", "señora", "miss"}, ()),
    (
        _INTRODUCED,
        frozenset({"called", "named", "signed", "attn", "customer", "patient", "passenger"})
        | {"client", "guest", "tenant", "employee"},
        ("name",),
    ),
    (_GREETED, frozenset({"dear", "hi", "hello", "thanks", "cheers", "regards", "sincerely"}), ()),
)
"""(rule, words of which a text must hold one, or strings of which it must)."""
_SAYING = ("i am ", "i'm ", "this is ", "contact ", "cc: ", "between ", "from: ", "to: ")


def people(text: str) -> list[Span]:
    """The names of people in a text, as far as their surroundings tell."""
    given, common = _words()
    found: list[Span] = []
    lowered = text.casefold()
    if text in {lowered, text.lower()}:
        return found

    def take(start: int, name: str) -> None:
        if name.split()[0].casefold() not in common | _TITLES and not any(
            span.start < start + len(name) and start < span.end for span in found
        ):
            found.append(Span(start, start + len(name), "PERSON"))

    words_held = set(_LETTERS.findall(lowered))
    for rule, cues, parts in _CUES:
        if cues.isdisjoint(words_held) and not any(part in lowered for part in parts):
            continue
        for match in rule.finditer(text):
            take(match.start("name"), match["name"])
    for match in _ANY.finditer(text) if not given.isdisjoint(words_held) else ():
        words = match.group().split()
        first = next((i for i, word in enumerate(words[:-1]) if word.casefold() in given), None)
        if first is not None and not (first and words[first - 1].casefold() in common):
            name = " ".join(words[first:])
            take(match.end() - len(name), name)
    for match in _SAID.finditer(text) if any(cue in lowered for cue in _SAYING) else ():
        if not any(word.casefold() in common for word in match["name"].split()):
            take(match.start("name"), match["name"])
    return sorted(found, key=lambda span: span.start)


def names() -> Stage:
    """Note rows that name people; the note says where, and never whom."""

    def apply(rows: Iterable[TracedRow], tally: Tally) -> Iterator[TracedRow]:
        for traced in rows:
            found = people(content_text(traced.row))
            if found:
                tally.changes["reported:person_named"] += 1
                where = ", ".join(f"{span.start}" for span in found[:5])
                said = f"{len(found)} names, at {where} of the row's text"
                tally.notes.append((traced, "person_named", said))
            yield traced

    def warn(total: Tally) -> list[str]:
        if not (rows := total.changes["reported:person_named"]):
            return []
        return [
            f"names: {rows} rows name people ({', '.join(total.named)}); names are not redacted: "
            "look at them, and list in curation.private_terms whom the model must not learn"
        ]

    return Stage("names", apply, warn)


@cache
def _words() -> tuple[frozenset[str], frozenset[str]]:
    text = resources.files("services.curation").joinpath("names.json").read_text("utf-8")
    data = json.loads(text)
    return frozenset(data["given"]), frozenset(data["common"])
