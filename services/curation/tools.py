"""Tools that rows bring along: sound schemas, and targets that keep to them (H6, F7).

A tool's schema decides later what a valid call is, so it is checked before it is believed: its name
can be called, its parameters are a JSON Schema, and its patterns end. A pattern that backtracks for
ever would hang every scorer, so patterns are tried in the sandbox, on strings made to provoke it; a
row with a tool that fails goes. A target that calls no offered tool, or breaks its schema, teaches
the error: such rows are reported or dropped as `curation.noisy_rows` says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any, Literal

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from contracts.data import Row
from services.curation.rows import Stage, Tally, TracedRow
from shared.chat import signature
from shared.sandbox import Limits, Sandbox
from shared.scoring.call import CallError, parse_call
from shared.scoring.tool_call import broken_schema

_NAME = re.compile(r"[A-Za-z_][\w.-]{0,127}")
_LIMITS = Limits(wall_s=4.0, cpu_s=2)
_REMEMBERED = 4096
"""Verdicts kept: a corpus may bring a tool of its own with every row."""
_PROBE = """
import json, re, sys
for pattern in json.load(sys.stdin):
    found = re.compile(pattern)
    letters = [*dict.fromkeys(pattern), "a", "0", " "]
    for letter in letters:
        for tail in ("!", "\\x00", letter + "!"):
            found.search(letter * 40 + tail)
"""


def tool_schemas(policy: Literal["report", "drop"]) -> Stage:
    """Drop rows with an unsound tool; report or drop targets that break their tool's schema."""
    verdicts: dict[str, str] = {}

    def apply(rows: Iterable[TracedRow], tally: Tally) -> Iterator[TracedRow]:
        for traced in rows:
            unsound = _unsound(traced.row, verdicts)
            if unsound:
                tally.drop(traced, "tool_schema_unsound", unsound)
                continue
            wrong = breaks(traced.row)
            if wrong and policy == "drop":
                tally.drop(traced, "call_breaks_schema", wrong)
                continue
            if wrong:
                tally.changes["reported:call_breaks_schema"] += 1
                tally.notes.append((traced, "call_breaks_schema", wrong))
            yield traced

    def warn(total: Tally) -> list[str]:
        if not (broken := total.changes["reported:call_breaks_schema"]):
            return []
        return [
            f"tool schemas: {broken} targets break the schema of the tool they call; "
            "mend them, or set curation.noisy_rows to drop"
        ]

    return Stage("tool_schemas", apply, warn)


def _unsound(row: Row, verdicts: dict[str, str]) -> str:
    for tool in row.tools:
        key = json.dumps(tool, sort_keys=True)
        if key not in verdicts:
            if len(verdicts) == _REMEMBERED:
                verdicts.clear()
            verdicts[key] = unsound(tool)
        if verdicts[key]:
            return verdicts[key]
    return ""


def unsound(tool: Mapping[str, Any]) -> str:
    """What is wrong with one tool in the OpenAI format; empty if nothing is."""
    function = tool.get("function", tool)
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        return f"{name!r} is no function name"
    parameters = function.get("parameters") or {}
    try:
        Draft202012Validator.check_schema(parameters)
    except SchemaError as error:
        return f"{name}: parameters are no JSON Schema: {error.message}"[:300]
    patterns = sorted(set(_patterns(parameters)))
    if patterns:
        done = _sandbox().run(["python3", "-I", "-c", _PROBE], stdin=json.dumps(patterns).encode())
        if not done.succeeded:
            return f"{name}: a pattern of {patterns} does not end, or is no regular expression"
    return ""


def breaks(row: Row) -> str:
    """How the target breaks the schema of the tool it calls; empty where it calls none."""
    if not row.tools or row.desirable is False:
        return ""
    try:
        call = parse_call(row.target or "")
    except CallError:
        return ""
    return broken_schema(call, {f["name"]: f for f in map(signature, row.tools)})


def _patterns(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        pattern = schema.get("pattern")
        if isinstance(pattern, str):
            yield pattern
        named = schema.get("patternProperties")
        if isinstance(named, dict):
            yield from named
        for value in schema.values():
            yield from _patterns(value)
    elif isinstance(schema, list):
        for item in schema:
            yield from _patterns(item)


@cache
def _sandbox() -> Sandbox:
    return Sandbox(_LIMITS)
