"""Validators: what a program beside the model can check of an answer without knowing the right one.

A validator reads the request and the answer, never `expected`: what it catches in diagnosis it
would catch in production.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from contracts.data import Row
from shared.chat import signature
from shared.scoring.call import CallError, parse_call, parse_json
from shared.scoring.tool_call import broken_schema

Validator = Callable[[Row, str], str]
"""Why the answer to a row cannot be used; empty if it can."""


def validator_for(schema: Mapping[str, Any] | None, rows: Sequence[Row]) -> Validator | None:
    """The validator of a job: its output schema, else its rows' tools; None if it has neither."""
    if schema is not None:
        return document_validator(schema)
    return call_complaint if any(row.tools for row in rows) else None


def document_validator(schema: Mapping[str, Any]) -> Validator:
    """Wants one JSON document of `schema`."""
    checker = Draft202012Validator(schema)

    def complaint(_row: Row, answer: str) -> str:
        try:
            error = best_match(checker.iter_errors(parse_json(answer)))
        except CallError as broken:
            return str(broken)
        return "" if error is None else f"{error.json_path}: {error.message}"[:300]

    return complaint


def call_complaint(row: Row, answer: str) -> str:
    """Why `answer` is no call that the row's tools would accept. A row without tools takes any."""
    if not row.tools:
        return ""
    try:
        call = parse_call(answer)
    except CallError as broken:
        return str(broken)
    return broken_schema(call, {f["name"]: f for f in map(signature, row.tools)})
