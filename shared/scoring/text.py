"""Scorers of plain answers: the expected text, a pattern, or a document of a JSON Schema."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from contracts.base import Problem
from contracts.data import Row
from shared.errors import InvalidInput
from shared.scoring.call import CallError, parse_json
from shared.scoring.score import Score, Scorer, right, unusable, wrong


def exact_match(row: Row, answer: str) -> Score:
    """Right if the answer is `row.expected` (a string, or one of several), outer space aside."""
    accepted = row.expected if isinstance(row.expected, list) else [row.expected]
    if not accepted or not all(isinstance(text, str) for text in accepted):
        raise _unusable_row(row, "exact_match", "a string or a list of strings")
    if not answer.strip():
        return unusable("empty answer")
    hit = answer.strip() in [str(text).strip() for text in accepted]
    return right() if hit else wrong(f"expected {accepted[0]!r}"[:200])


def regex(row: Row, answer: str) -> Score:
    """Right if the whole answer, outer space aside, matches the pattern in `row.expected`."""
    if not isinstance(row.expected, str):
        raise _unusable_row(row, "regex", "a regular expression")
    try:
        pattern = re.compile(row.expected)
    except re.error as error:
        raise _unusable_row(row, "regex", f"a regular expression ({error})") from error
    if not answer.strip():
        return unusable("empty answer")
    return right() if pattern.fullmatch(answer.strip()) else wrong("no match")


def json_schema(schema: Mapping[str, Any] | None) -> Scorer:
    """A scorer that wants one JSON document of `schema` (or of the row's own `expected.schema`).

    A row with `expected.value` also wants that value.
    """

    def score(row: Row, answer: str) -> Score:
        expected = row.expected if isinstance(row.expected, dict) else {}
        wanted = expected.get("schema", schema)
        if not isinstance(wanted, Mapping):
            raise _unusable_row(
                row, "json_schema", '{"schema": ...} (the job has no output_schema)'
            )
        try:
            value = parse_json(answer)
        except CallError as error:
            return unusable(str(error))
        broken = best_match(Draft202012Validator(wanted).iter_errors(value))
        if broken is not None:
            return unusable(broken.message[:300])
        if "value" in expected and value != expected["value"]:
            return wrong("another value than expected")
        return right()

    return score


def _unusable_row(row: Row, scorer: str, wanted: str) -> InvalidInput:
    return InvalidInput(
        [
            Problem(
                where=f"{row.id}.expected",
                problem=f"{scorer} cannot check this row",
                mend=f"Set expected to {wanted}.",
            )
        ]
    )
