"""Personal data and secrets leave the rows; typed placeholders stay (C3).

One value gets one placeholder everywhere in its row, so a redacted request still matches its
redacted tool call. The first e-mail address of a row is `<EMAIL>`, a second one `<EMAIL_2>`.
Detection reads a *view* of the text (NFKC, percent-decoded, without zero-width characters), since
that is how hidden values are spelled; replacement happens in the original, so all else stays as
written.
The audit says which row, field, type, position and length; never the content.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

from contracts.data import Message, Row
from services.curation.rows import Stage, Tally, TracedRow
from services.curation.view import View, view_of

PLACEHOLDER = re.compile(r"<([A-Z]+)(?:_(\d+))?>")
_BATCH = 256
_ROUNDS = 3
_SCHEMA_PROSE = frozenset({"description", "default", "example", "examples", "enum", "const"})
"""What a tool's schema says; its names, types and `required` lists are structure."""
_DIGITS = re.compile(r"\d")
_NUMERIC_KINDS = frozenset({"PHONE", "CREDIT_CARD", "NATIONAL_ID"})


@dataclass(frozen=True, slots=True)
class Span:
    """A detected value: `text[start:end]` is of `kind`."""

    start: int
    end: int
    kind: str


class Detector(Protocol):
    """Finds personal data and secrets."""

    def detect(self, texts: Sequence[str]) -> list[list[Span]]:
        """The spans of each text, in any order; overlaps are allowed."""
        ...


@dataclass(frozen=True, slots=True)
class Redaction:
    """One audit line: never the content."""

    row: str
    field: str
    kind: str
    position: int
    length: int


@dataclass(slots=True)
class Audit:
    """The redactions of a shard, in row order."""

    entries: list[Redaction] = field(default_factory=list)

    def taken(self) -> list[Redaction]:
        """The entries, in order; the audit is empty afterwards."""
        taken, self.entries = self.entries, []
        return taken

    def drained(self) -> Iterator[str]:
        """The same as JSON."""
        for e in self.taken():
            yield json.dumps(
                {"row": e.row, "field": e.field, "type": e.kind, "position": e.position,
                 "length": e.length},
                sort_keys=True,
            )  # fmt: skip


def redaction(detector: Detector, audit: Audit) -> Stage:
    """Replace every detected value. No row is dropped; `changed` counts values by type."""

    def apply(rows: Iterable[TracedRow], tally: Tally) -> Iterator[TracedRow]:
        stream = iter(rows)
        while batch := list(islice(stream, _BATCH)):
            cleaned = [traced.row for traced in batch]
            pending = list(range(len(batch)))
            for _ in range(_ROUNDS):
                results = _redact_batch([cleaned[i] for i in pending], detector)
                changed = []
                for i, (row, entries) in zip(pending, results, strict=True):
                    if entries:
                        cleaned[i] = row
                        changed.append(i)
                        audit.entries.extend(entries)
                        tally.changes.update(f"redacted:{e.kind}" for e in entries)
                pending = changed
                if not pending:
                    break
            for traced, row in zip(batch, cleaned, strict=True):
                yield traced if row is traced.row else traced.changed(row, "redacted")

    return Stage("redaction", apply)


def _redact_batch(rows: Sequence[Row], detector: Detector) -> list[tuple[Row, list[Redaction]]]:
    texts: list[str] = []
    bounds: list[tuple[int, int]] = []
    paths: list[list[str]] = []
    for row in rows:
        leaves = list(_leaves(row))
        bounds.append((len(texts), len(texts) + len(leaves)))
        paths.append([path for path, _ in leaves])
        texts.extend(text for _, text in leaves)
    views = [view_of(text) for text in texts]
    spans = detector.detect([view.text for view in views])
    return [
        _redact_row(row, views[a:b], spans[a:b], names)
        for row, (a, b), names in zip(rows, bounds, paths, strict=True)
    ]


def _redact_row(
    row: Row, views: Sequence[View], spans: Sequence[Sequence[Span]], paths: Sequence[str]
) -> tuple[Row, list[Redaction]]:
    found = [_outside_placeholders(v.text, s) for v, s in zip(views, spans, strict=True)]
    if not any(found):
        return row, []
    names = _placeholders(views, found)
    forms = {form: kind_value for kind_value in names for form in _forms(*kind_value)}
    search = _any_of(forms)
    entries: list[Redaction] = []
    replaced: list[str] = []
    for view, own, path in zip(views, found, paths, strict=True):
        known = [
            (m.start(), m.end(), forms[m.group().casefold()]) for m in search.finditer(view.text)
        ]
        hits = [(s.start, s.end, (s.kind, _canonical(s.kind, view.text[s.start : s.end])))
                for s in own] + known  # fmt: skip
        raw: list[tuple[int, int, str]] = []
        for start, end, value in _disjoint(hits):
            a, b = view.raw_span(start, end)
            raw.append((a, b, names[value]))
            entries.append(Redaction(_public_id(row, forms), path, value[0], a, b - a))
        replaced.append(_replace(view.raw, raw))
    return _rebuild(row, replaced, forms, names), entries


def _outside_placeholders(text: str, spans: Sequence[Span]) -> list[Span]:
    taken = [m.span() for m in PLACEHOLDER.finditer(text)]
    return [s for s in spans if not any(s.start < b and a < s.end for a, b in taken)]


def _canonical(kind: str, value: str) -> str:
    if kind in _NUMERIC_KINDS:
        return "".join(_DIGITS.findall(value))
    return value.casefold()


def _forms(kind: str, value: str) -> Iterator[str]:
    """Spellings of a canonical value to look for in the row's other fields.

    A host that is a plain word is replaced only where it was detected, as a host.
    """
    if len(value) >= 4 and not (kind == "HOST" and value.isalpha()):
        yield value
        escaped = json.dumps(value, ensure_ascii=False)[1:-1]
        if escaped != value:
            yield escaped


def _any_of(forms: Iterable[str]) -> re.Pattern[str]:
    alternatives = "|".join(re.escape(f) for f in sorted(forms, key=len, reverse=True))
    return re.compile(rf"(?<![\w])(?:{alternatives or '(?!)'})(?![\w]|\\?[\"']\s*:)", re.IGNORECASE)


def _placeholders(
    views: Sequence[View], found: Sequence[Sequence[Span]]
) -> dict[tuple[str, str], str]:
    """(kind, canonical value) → placeholder, numbered in order of appearance."""
    used = {m.group() for view in views for m in PLACEHOLDER.finditer(view.text)}
    names: dict[tuple[str, str], str] = {}
    for view, spans in zip(views, found, strict=True):
        hits = [(s.start, s.end, (s.kind, _canonical(s.kind, view.text[s.start : s.end])))
                for s in spans]  # fmt: skip
        for _, _, value in _disjoint(hits):
            if value in names:
                continue
            number, name = 1, f"<{value[0]}>"
            while name in used:
                number += 1
                name = f"<{value[0]}_{number}>"
            used.add(name)
            names[value] = name
    return names


_Hit = tuple[int, int, tuple[str, str]]


def _disjoint(hits: Iterable[_Hit]) -> list[_Hit]:
    """Non-overlapping hits in order; the longer of two that overlap stays."""
    kept: list[_Hit] = []
    for hit in sorted(hits, key=lambda h: (h[0] - h[1], h[0], h[2])):
        if all(hit[1] <= a or b <= hit[0] for a, b, _ in kept):
            kept.append(hit)
    return sorted(kept)


def _replace(text: str, spans: Sequence[tuple[int, int, str]]) -> str:
    if not spans:
        return text
    parts, at = [], 0
    for start, end, name in spans:
        parts += [text[at:start], name]
        at = end
    result = "".join((*parts, text[at:]))
    return result if not _is_json(text) or _is_json(result) else _quoted(text, spans)


def _quoted(text: str, spans: Sequence[tuple[int, int, str]]) -> str:
    """JSON whose *number* was a value: the placeholder becomes a string."""
    parts, at = [], 0
    for start, end, name in spans:
        bare = text[:start].count('"') % 2 == 0
        parts += [text[at:start], f'"{name}"' if bare else name]
        at = end
    return "".join((*parts, text[at:]))


def _is_json(text: str) -> bool:
    if not text.lstrip().startswith(("{", "[")):
        return False
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _leaves(row: Row) -> Iterator[tuple[str, str]]:
    """Every string of the row that training or scoring would read, by path."""
    for i, message in enumerate(row.messages):
        yield f"messages[{i}].content", message.content
    if row.target is not None:
        yield "target", row.target
    if row.rejected is not None:
        yield "rejected", row.rejected
    yield from _strings("expected", row.expected)
    yield from _prose("tools", list(row.tools))
    yield from _strings("meta", row.meta)
    if row.group is not None:
        yield "group", row.group
    yield "id", row.id


def _strings(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key in value:
            yield from _strings(f"{path}.{key}", value[key])
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _strings(f"{path}[{i}]", item)


def _prose(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            walk = _strings if _is_prose(key, item) else _prose
            yield from walk(f"{path}.{key}", item)
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _prose(f"{path}[{i}]", item)


def _map_prose(value: Any, text: Callable[[], str], number: Callable[[Any], Any]) -> Any:
    if isinstance(value, dict):
        return {
            key: (_map_strings if _is_prose(key, item) else _map_prose)(item, text, number)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_map_prose(item, text, number) for item in value]
    return value


def _is_prose(key: str, value: Any) -> bool:
    """A parameter may itself be called `description`; its schema is an object."""
    return key in _SCHEMA_PROSE and not isinstance(value, dict)


def _map_strings(value: Any, text: Callable[[], str], number: Callable[[Any], Any]) -> Any:
    if isinstance(value, str):
        return text()
    if isinstance(value, dict):
        return {key: _map_strings(item, text, number) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_map_strings(item, text, number) for item in value]
    return number(value)


def _rebuild(
    row: Row,
    texts: Sequence[str],
    forms: dict[str, tuple[str, str]],
    names: dict[tuple[str, str], str],
) -> Row:
    stream = iter(texts)

    def number(value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int):
            return value
        found = forms.get(str(value))
        return names[found] if found else value

    def text() -> str:
        return next(stream)

    messages = tuple(Message(role=m.role, content=next(stream)) for m in row.messages)
    target = None if row.target is None else next(stream)
    rejected = None if row.rejected is None else next(stream)
    expected = _map_strings(row.expected, text, number)
    tools = tuple(_map_prose(list(row.tools), text, number))
    meta = _map_strings(row.meta, text, number)
    group = None if row.group is None else _pseudonym(row.group, next(stream))
    return row.model_copy(
        update={
            "id": _pseudonym(row.id, next(stream)),
            "messages": messages,
            "target": target,
            "rejected": rejected,
            "expected": expected,
            "tools": tools,
            "meta": meta,
            "group": group,
        }
    )


def _pseudonym(original: str, redacted: str) -> str:
    """Ids and groups must stay distinct: one that held a value becomes a hash."""
    if original == redacted:
        return original
    return "redacted-" + hashlib.sha256(original.encode()).hexdigest()[:16]


def _public_id(row: Row, forms: dict[str, tuple[str, str]]) -> str:
    hidden = any(form in row.id.casefold() for form in forms)
    return _pseudonym(row.id, "") if hidden else row.id
