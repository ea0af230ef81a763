"""Requests that arrive broken, made of held-out ones (G4): does the model ask or recover?

| kind | what is done | a good model |
|---|---|---|
| `truncated` | the request ends half-way, and values it named are gone | asks, or leaves them out |
| `wrong_type` | a number is replaced by a word that is none | asks, or leaves it out |
| `nested_noise` | the whole request lies in nested JSON | answers as ever |

A call that gives a lost argument a value which is not in the request *invents*. Only values that
the request named are counted as lost: no booleans, no values of an `enum`, nothing optional.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from contracts.data import Message, Row
from shared.chat import signature
from shared.scoring import CallError, parse_call

Kind = Literal["truncated", "wrong_type", "nested_noise"]
MOST = 12
"""Requests of each kind."""
WORD = "umbrella"
"""Stands where a number stood."""


@dataclass(frozen=True, slots=True)
class Malformed:
    """One broken request."""

    kind: Kind
    row: Row
    lost: tuple[str, ...] = ()
    """Arguments whose values it no longer holds; empty where nothing is lost."""


def malformed(rows: Sequence[Row]) -> tuple[Malformed, ...]:
    """At most `MOST` requests of each kind, in the order of `rows`; none of rows without calls."""
    made: dict[Kind, list[Malformed]] = {"truncated": [], "wrong_type": [], "nested_noise": []}
    for row in rows:
        for item in _broken(row):
            if len(made[item.kind]) < MOST:
                made[item.kind].append(item)
    return tuple(item for kind in made.values() for item in kind)


def invents(item: Malformed, answer: str) -> bool:
    """Whether the answer is a call that gives a lost argument a value from nowhere."""
    try:
        arguments = parse_call(answer).arguments
    except CallError:
        return False
    text = _request(item.row)
    given = [arguments[name] for name in item.lost if name in arguments]
    return any(value not in (None, "", [], {}) and not _named(value, text) for value in given)


def _broken(row: Row) -> Iterator[Malformed]:
    if not row.tools or not isinstance(row.expected, dict):
        return
    text, values = _request(row), _needed(row)
    if not text:
        return
    words = text.split()
    half = " ".join(words[: len(words) // 2])
    if half and (gone := _gone(values, text, half)):
        yield Malformed("truncated", _with(row, "truncated", half), gone)
    numbers = {
        name: [v for v in accepted if isinstance(v, int | float)]
        for name, accepted in values.items()
    }
    wordy = text
    for number in {str(v) for accepted in numbers.values() for v in accepted}:
        wordy = re.sub(_whole(number), WORD, wordy)
    if gone := _gone(numbers, text, wordy):
        yield Malformed("wrong_type", _with(row, "wrong_type", wordy), gone)
    noise = json.dumps({"v": [[[None, {}]]], "in": [{"d": {"q": [text], "h": {"x": [[]]}}}]})
    yield Malformed("nested_noise", _with(row, "nested_noise", noise))


def _needed(row: Row) -> dict[str, list[Any]]:
    """Accepted values of the arguments that only the request can tell."""
    expected: Any = row.expected
    tools = {f["name"]: f.get("parameters") or {} for f in map(signature, row.tools)}
    schema = tools.get(expected.get("name"), {})
    allowed = expected.get("allowed")
    if not isinstance(allowed, Mapping):
        return {}
    return {
        name: list(accepted)
        for name in schema.get("required", ())
        if (accepted := allowed.get(name))
        and "" not in accepted
        and "enum" not in schema.get("properties", {}).get(name, {})
        and not any(isinstance(value, bool) for value in accepted)
    }


def _gone(values: Mapping[str, Sequence[Any]], before: str, after: str) -> tuple[str, ...]:
    """Arguments of which `before` names an accepted value and `after` none."""
    return tuple(
        name
        for name, accepted in values.items()
        if any(_named(v, before) for v in accepted) and not any(_named(v, after) for v in accepted)
    )


def _named(value: Any, text: str) -> bool:
    """Whether the text holds the value; of a list or object, all that is in it."""
    if isinstance(value, Mapping):
        return all(_named(item, text) for item in value.values())
    if isinstance(value, list):
        return bool(value) and all(_named(item, text) for item in value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return re.search(_whole(str(value)), text, re.IGNORECASE) is not None


def _whole(text: str) -> str:
    return rf"(?<!\w)(?<!\d[.,]){re.escape(text)}(?!\w)(?![.,]\d)"


def _request(row: Row) -> str:
    return next((m.content for m in reversed(row.messages) if m.role == "user"), "")


def _with(row: Row, kind: Kind, text: str) -> Row:
    last = max(i for i, turn in enumerate(row.messages) if turn.role == "user")
    turns = list(row.messages)
    turns[last] = Message(role="user", content=text)
    return row.model_copy(update={"id": f"{row.id}-{kind}", "messages": tuple(turns)})
