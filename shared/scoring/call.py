"""A tool call as text: parsing it, and the JSON Schema that constrains a model to write one.

The canonical text is one JSON object, `{"name": ..., "arguments": {...}}`. The forms of the OpenAI
API (`{"tool_calls": [...]}`, a `{"type": "function", "function": {...}}` entry, arguments as a JSON
string) say the same and are accepted.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from shared.chat import signature


class CallError(ValueError):
    """The text is not exactly one tool call."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call: which function, with which arguments."""

    name: str
    arguments: dict[str, Any]

    def __str__(self) -> str:
        return json.dumps({"name": self.name, "arguments": self.arguments}, ensure_ascii=False)


def parse_json(text: str) -> Any:
    """Strict JSON: no NaN, no second value, no endless nesting. Raises CallError."""
    try:
        return json.loads(text.strip(), parse_constant=_no_constant)
    except RecursionError:
        raise CallError("nested too deeply") from None
    except ValueError as error:
        raise CallError(f"not JSON: {error}") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def parse_call(text: str) -> ToolCall:
    """The one call in `text`. Raises CallError; the law: `parse_call(str(call)) == call`."""
    value = parse_json(text)
    if isinstance(value, dict) and isinstance(value.get("tool_calls"), list):
        value = value["tool_calls"]
    if isinstance(value, list):
        if len(value) != 1:
            raise CallError(f"{len(value)} calls where one is wanted")
        value = value[0]
    if isinstance(value, dict) and isinstance(value.get("function"), dict):
        value = value["function"]
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise CallError("no object with a name")
    arguments = value.get("arguments")
    if isinstance(arguments, str):
        arguments = parse_json(arguments)
    if not isinstance(arguments, dict):
        raise CallError("arguments are not an object")
    extra = set(value) - {"name", "arguments"}
    if extra:
        raise CallError(f"unexpected keys {sorted(extra)}")
    return ToolCall(value["name"], arguments)


def call_schema(tools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The JSON Schema of a call of one of `tools` (OpenAI `tools` entries).

    The name is fixed per tool and comes first, so that constrained decoding writes the arguments
    under the schema of the function it named. Objects that list their properties are closed.

    Raises:
        ValueError: no tool, or two tools define the same `$defs` name differently.
    """
    if not tools:
        raise ValueError("no tools to call")
    definitions: dict[str, Any] = {}
    calls = [_one_call(signature(tool), definitions) for tool in tools]
    schema: dict[str, Any] = calls[0] if len(calls) == 1 else {"anyOf": calls}
    return {**schema, "$defs": definitions} if definitions else schema


def _one_call(function: Mapping[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    parameters = copy.deepcopy(function.get("parameters") or {"type": "object", "properties": {}})
    # `#/$defs/...` is relative to the whole document, so definitions move to its root.
    for name, definition in parameters.pop("$defs", {}).items():
        if definitions.setdefault(name, _closed(definition)) != _closed(definition):
            raise ValueError(f"two tools define $defs/{name} differently")
    return {
        "type": "object",
        "properties": {"name": {"const": function["name"]}, "arguments": _closed(parameters)},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _closed(schema: Any) -> Any:
    if not isinstance(schema, Mapping):
        return schema
    closed = dict(schema)
    if isinstance(closed.get("properties"), Mapping):
        closed["properties"] = {k: _closed(v) for k, v in closed["properties"].items()}
        closed.setdefault("additionalProperties", False)
    if "items" in closed:
        closed["items"] = _closed(closed["items"])
    return closed
