"""Berkeley Function Calling Leaderboard questions as dataset rows.

A question is a request, one function and, per argument, the list of accepted values (`""` among
them: the argument may be left out). A row keeps those lists for the scorer and gets the call a
model should learn to write: the first accepted value of each argument, optional ones left out.

Rows of one function name stay in one split, so no split has seen another's functions.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from contracts.data import Message, Row
from shared.scoring import ToolCall, tool_call

SYSTEM_PROMPT = (
    "Answer the request with exactly one JSON object and nothing else: "
    '{"name": <function name>, "arguments": {...}}.'
)
SPLIT_SIZES = {"heldout": 80, "traffic": 60, "dev": 40}
"""Split → rows; what is left over is for training."""

_JSON_TYPES = {
    "dict": "object",
    "float": "number",
    "tuple": "array",
    "list": "array",
    "any": "string",
}
"""The leaderboard writes Python types; it judges `any` as a string."""


@dataclass(frozen=True, slots=True)
class Question:
    """One leaderboard item with its accepted answer."""

    id: str
    request: str
    function: dict[str, Any]
    allowed: dict[str, list[Any]]


def questions(data: Path, category: str) -> Iterator[Question]:
    """The single-turn questions of `category` (`simple_python`) under the wheel's data folder."""
    answers = {a["id"]: a for a in _lines(data / "possible_answer" / f"BFCL_v4_{category}.json")}
    for item in _lines(data / f"BFCL_v4_{category}.json"):
        (turn,), (function,) = item["question"], item["function"]
        (answer,) = answers[item["id"]]["ground_truth"]
        if len(turn) == 1 and turn[0]["role"] == "user":
            yield Question(item["id"], turn[0]["content"], function, answer[function["name"]])


def row_of(question: Question) -> Row | None:
    """The row; None if the accepted answer breaks the function's own signature."""
    function = {
        "name": question.function["name"],
        "description": question.function["description"],
        "parameters": json_types(question.function["parameters"]),
    }
    Draft202012Validator.check_schema(function["parameters"])
    row = Row(
        id=question.id,
        messages=(
            Message(role="system", content=SYSTEM_PROMPT),
            Message(role="user", content=question.request),
        ),
        tools=({"type": "function", "function": function},),
        target=str(first_call(function["name"], question.allowed)),
        expected={"name": function["name"], "allowed": question.allowed},
        group=function["name"],
        meta={"source": "bfcl_eval 2026.3.23"},
    )
    return row if tool_call(row, row.target or "").value == 1.0 else None


def json_types(schema: Any) -> Any:
    """`schema` with JSON Schema's type names in place of Python's."""
    if isinstance(schema, list):
        return [json_types(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _JSON_TYPES.get(value, value)
        if key == "type" and isinstance(value, str)
        else json_types(value)
        for key, value in schema.items()
    }


def first_call(name: str, allowed: dict[str, list[Any]]) -> ToolCall:
    """The call with the first accepted value of every argument that may not be left out."""
    return ToolCall(name, _first_fields(allowed))


def _first_fields(allowed: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _first(values)
        for key, values in allowed.items()
        if not isinstance(values, list) or "" not in values
    }


def _first(values: Any) -> Any:
    value = values[0] if isinstance(values, list) and values else values
    if isinstance(value, dict):
        return _first_fields(value)
    if isinstance(value, list):
        return [_first_fields(item) if isinstance(item, dict) else item for item in value]
    return value


def split(rows: Iterable[Row], seed: int = 0) -> dict[str, list[Row]]:
    """Rows by split, whole groups at a time, the same for the same rows and seed."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.cluster, []).append(row)
    order = sorted(groups)
    random.Random(seed).shuffle(order)
    splits: dict[str, list[Row]] = {name: [] for name in (*SPLIT_SIZES, "train")}
    for group in order:
        fits = (
            name
            for name, size in SPLIT_SIZES.items()
            if len(splits[name]) + len(groups[group]) <= size
        )
        splits[next(fits, "train")] += groups[group]
    return splits


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        yield from (json.loads(line) for line in lines if line.strip())
