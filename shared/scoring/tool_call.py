"""Is this the right tool call? The rules of the Berkeley Function Calling Leaderboard.

`row.expected` is `{"name": ..., "allowed": {argument: [accepted values]}}`. The rules, after BFCL's
AST checker for simple Python calls:

- the function's name matches, every required argument is there, none is there that is not allowed;
- an argument may be left out where `""` is among its accepted values;
- strings compare without case, spaces and the marks `,./-_*^`; single quotes equal double quotes;
- an integer is good for a number, a float is not good for an integer;
- a value of the accepted values' own type is good where the signature says another type;
- lists match an accepted list element by element; an object matches an accepted object whose
  fields hold lists of accepted values.

One rule is stricter than BFCL's: a call that breaks its signature (a value outside an `enum`, say
in capitals) is never right, because the function could not be called with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from contracts.base import Problem
from contracts.data import Row
from shared.chat import signature
from shared.errors import InvalidInput
from shared.scoring.call import CallError, ToolCall, parse_call
from shared.scoring.score import Score, right, unusable, wrong

_MARKS = re.compile(r"[ ,./\-_*^]")
_TYPES: dict[str, type] = {
    "string": str,
    "integer": int,
    "number": float,
    "boolean": bool,
    "array": list,
    "object": dict,
}


def tool_call(row: Row, answer: str) -> Score:
    """Judge `answer` as a call of one of `row.tools`.

    Raises:
        InvalidInput: the row says nothing a call can be checked against.
    """
    expected = _expectation(row)
    try:
        call = parse_call(answer)
    except CallError as error:
        return unusable(str(error))
    functions = {f["name"]: f for f in map(signature, row.tools)}
    if row.tools and (broken := broken_schema(call, functions)):
        return unusable(broken)
    if call.name != expected["name"]:
        return wrong(f"calls {call.name}, not {expected['name']}")
    parameters = functions.get(call.name, {}).get("parameters") or {}
    mismatch = _mismatch(call.arguments, expected["allowed"], parameters)
    return wrong(mismatch) if mismatch else right()


def broken_schema(call: ToolCall, functions: Mapping[str, Mapping[str, Any]]) -> str:
    """Why `call` breaks the signatures (name → OpenAI function); empty if it satisfies them."""
    if call.name not in functions:
        return f"no function {call.name!r}"
    schema = functions[call.name].get("parameters") or {}
    error = best_match(Draft202012Validator(schema).iter_errors(call.arguments))
    return f"arguments: {error.message}"[:300] if error else ""


def _expectation(row: Row) -> Mapping[str, Any]:
    expected: Any = row.expected
    if (
        isinstance(expected, dict)
        and isinstance(expected.get("name"), str)
        and isinstance(expected.get("allowed"), dict)
        and all(isinstance(values, list) for values in expected["allowed"].values())
    ):
        return expected
    raise InvalidInput(
        [
            Problem(
                where=f"{row.id}.expected",
                problem="tool_call cannot check this row",
                mend='Set expected to {"name": ..., "allowed": {argument: [values]}}.',
            )
        ]
    )


def _mismatch(
    arguments: Mapping[str, Any], allowed: Mapping[str, Sequence[Any]], schema: Mapping[str, Any]
) -> str:
    for name in schema.get("required", ()):
        if name not in arguments:
            return f"{name} is missing"
    properties = schema.get("properties", {})
    for name, value in arguments.items():
        if name not in allowed or (properties and name not in properties):
            return f"{name} is not expected"
        if not _accepts(value, allowed[name], properties.get(name, {})):
            return f"{name} is {value!r}"[:200]
    for name, values in allowed.items():
        if name not in arguments and "" not in values:
            return f"{name} is missing"
    return ""


def _accepts(value: Any, accepted: Sequence[Any], schema: Mapping[str, Any]) -> bool:
    """Whether `value` is one of `accepted`, for an argument of this schema."""
    described = _described_type(schema, value)
    if described is float and type(value) is int:
        value = float(value)
    own = next((type(item) for item in accepted if item != ""), None)
    if type(value) is not described:
        return type(value) is own and _same_or_listed(value, accepted, described, schema)
    if isinstance(value, list) and not _items_fit(value, accepted, schema):
        return type(value) is own and _same_or_listed(value, accepted, described, schema)
    if own is not None and own is not described:
        return value in accepted
    return _same_or_listed(value, accepted, described, schema)


def _described_type(schema: Mapping[str, Any], value: Any) -> type:
    """The Python type the signature asks for; without one, the value's own."""
    name = schema.get("type")
    return _TYPES.get(name, type(value)) if isinstance(name, str) else type(value)


def _items_fit(value: list[Any], accepted: Sequence[Any], schema: Mapping[str, Any]) -> bool:
    """Whether every item has the described item type, or that of some accepted list."""
    items = schema.get("items")
    if not isinstance(items, Mapping) or not isinstance(items.get("type"), str):
        return True
    described = _TYPES.get(items["type"], object)
    for candidate in accepted:
        if not isinstance(candidate, list):
            return True
        own = next((type(item) for item in candidate if item != ""), None)
        if all(type(item) in (described, own) for item in value):
            return True
    return False


def _same_or_listed(
    value: Any, accepted: Sequence[Any], described: type, schema: Mapping[str, Any]
) -> bool:
    if type(value) is not described:  # of the accepted values' own type: taken literally
        return value in accepted if not isinstance(value, str) else _string_in(value, accepted)
    if isinstance(value, dict):
        return any(isinstance(a, dict) and _object_matches(value, a) for a in accepted)
    if isinstance(value, list):
        items = schema.get("items")
        if isinstance(items, Mapping) and items.get("type") == "object":
            return any(isinstance(a, list) and _objects_match(value, a) for a in accepted)
        plain = [_plain(item) for item in value]
        return any(isinstance(a, list) and plain == [_plain(item) for item in a] for a in accepted)
    return _string_in(value, accepted) if isinstance(value, str) else value in accepted


def _string_in(value: str, accepted: Sequence[Any]) -> bool:
    return _plain(value) in [_plain(a) for a in accepted if isinstance(a, str)]


def _object_matches(value: Mapping[str, Any], accepted: Mapping[str, Any]) -> bool:
    for key, item in value.items():
        if key not in accepted:
            return False
        if _plain(item) not in [_plain(a) for a in accepted[key]]:
            return False
    return all(key in value or "" in values for key, values in accepted.items())


def _objects_match(value: Sequence[Any], accepted: Sequence[Any]) -> bool:
    return len(value) == len(accepted) and all(
        isinstance(v, dict) and isinstance(a, dict) and _object_matches(v, a)
        for v, a in zip(value, accepted, strict=True)
    )


def _plain(value: Any) -> Any:
    """A string as BFCL compares it; anything else unchanged."""
    if not isinstance(value, str):
        return value
    return _MARKS.sub("", value).lower().replace("'", '"')
