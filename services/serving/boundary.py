"""The execution boundary: does an answer keep the contract its request set? Pure (M1).

With tools, the answer must be one JSON object that names a given function with valid arguments;
with a response schema it must validate; without either there is nothing to judge: None.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.validators import validator_for

from services.serving.grounding import citations_supported, grounding
from shared.chat import signature
from shared.scoring.refusal import refuses


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call the answer asks for."""

    name: str
    arguments: dict[str, Any]


def tool_call(text: str, tools: Sequence[Mapping[str, Any]]) -> ToolCall | None:
    """The call `text` spells, if it names one of `tools`; its arguments are not validated."""
    try:
        answer = json.loads(text)
    except ValueError:
        return None
    if not isinstance(answer, dict) or set(answer) != {"name", "arguments"}:
        return None
    name, arguments = answer["name"], answer["arguments"]
    known = {signature(tool)["name"] for tool in tools}
    if not isinstance(name, str) or name not in known or not isinstance(arguments, dict):
        return None
    return ToolCall(name, arguments)


def satisfies(value: Any, schema: Mapping[str, Any]) -> bool:
    """Whether `value` validates. A schema that is itself invalid satisfies nobody."""
    try:
        validator_for(schema)(schema).validate(value)
    except (ValidationError, SchemaError):
        return False
    except Exception:  # an unresolvable $ref or an unknown type word, in a caller's schema
        return False
    return True


def schema_valid(
    text: str,
    *,
    tools: Sequence[Mapping[str, Any]] = (),
    schema: Mapping[str, Any] | None = None,
) -> bool | None:
    """The verdict on one answer; None where the request set no contract."""
    if schema is not None:
        try:
            return satisfies(json.loads(text), schema)
        except ValueError:
            return False
    if tools:
        call = tool_call(text, tools)
        if call is None:
            return False
        functions = {signature(tool)["name"]: signature(tool) for tool in tools}
        return satisfies(call.arguments, functions[call.name].get("parameters") or {})
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What an answer's text shows; None where the request gave nothing to judge it by."""

    schema_valid: bool | None = None
    tool_call_valid: bool | None = None
    grounding: float | None = None
    citations_supported: bool | None = None
    refused: bool | None = None


def judge(
    text: str,
    *,
    tools: Sequence[Mapping[str, Any]] = (),
    schema: Mapping[str, Any] | None = None,
    documents: Sequence[str] = (),
) -> Judgement:
    """Everything the boundary says about one answer."""
    valid = schema_valid(text, tools=tools, schema=schema)
    return Judgement(
        schema_valid=valid,
        tool_call_valid=schema_valid(text, tools=tools) if tools else None,
        grounding=grounding(text, documents),
        citations_supported=citations_supported(text, documents),
        refused=refuses(text),
    )


def task_success(*, error: str | None, finish_reason: str | None, valid: bool | None) -> bool:
    """No error, not cut off, contract kept."""
    return error is None and finish_reason != "length" and valid is not False
