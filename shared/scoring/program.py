"""Scorers of programs: Python that passes tests, SQL that gives the expected rows.

An answer is a program of a model's; it runs in the sandbox and nowhere else. The checkers beside
this module run there too, on the system's own Python, and print one JSON verdict under a name the
program cannot guess.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from contracts.base import Problem
from contracts.data import Row
from shared.errors import InvalidInput
from shared.sandbox import Sandbox
from shared.scoring.score import Score, right, unusable, wrong

_FENCE = re.compile(r"```[\w+-]*\n(.*?)(?:```|\Z)", re.DOTALL)


def python_tests(row: Row, answer: str) -> Score:
    """Right if the answer's Python passes `row.expected.tests`, a module of assertions.

    The tests see every name the answer defines. An answer that does not compile is unusable.
    """
    tests = _wanted(row, "python_tests", "tests")["tests"]
    return _check("check_python.py", {"answer": program_of(answer), "tests": tests})


def sql_query(row: Row, answer: str) -> Score:
    """Right if the answer's SELECT gives the rows of `row.expected.query`.

    Both run in SQLite on the tables of `row.expected.schema` (statements that create and fill
    them). Order counts only where the expected query orders. Anything but one reading statement
    is unusable.
    """
    wanted = _wanted(row, "sql_query", "schema", "query")
    given = {"schema": wanted["schema"], "query": wanted["query"], "answer": program_of(answer)}
    return _check("check_sql.py", given)


def program_of(answer: str) -> str:
    """The first fenced block of an answer, or all of it."""
    fenced = _FENCE.search(answer)
    return (fenced.group(1) if fenced else answer).strip()


def _check(checker: str, given: Mapping[str, str]) -> Score:
    if not given["answer"]:
        return unusable("empty answer")
    mark = secrets.token_hex(16)
    script = resources.files("shared.scoring").joinpath(checker).read_bytes()
    result = _sandbox().run(
        ["python3", "-I", checker],
        files={checker: script},
        stdin=json.dumps({"mark": mark, **given}).encode(),
    )
    for line in reversed(result.stdout.decode(errors="replace").splitlines()):
        if line.startswith(mark):
            verdict = json.loads(line.removeprefix(mark))
            return _scored(verdict["outcome"], verdict["reason"])
    return wrong(f"the program ended without a verdict: {result.ending}")


def _scored(outcome: str, reason: str) -> Score:
    return {"right": lambda _: right(), "wrong": wrong, "unusable": unusable}[outcome](reason[:300])


@cache
def _sandbox() -> Sandbox:
    return Sandbox()


def _wanted(row: Row, scorer: str, *names: str) -> Mapping[str, Any]:
    expected = row.expected
    if isinstance(expected, dict) and all(isinstance(expected.get(name), str) for name in names):
        return expected
    shape = ", ".join(f'"{name}": "..."' for name in names)
    raise InvalidInput(
        [
            Problem(
                where=f"{row.id}.expected",
                problem=f"{scorer} cannot check this row",
                mend=f"Set expected to {{{shape}}}.",
            )
        ]
    )
