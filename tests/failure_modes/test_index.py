"""docs/failure-modes.md names a test for every failure mode, and each provokes its own."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
PAGE = TESTS.parent / "docs" / "failure-modes.md"
_PLACE = re.compile(r"`([\w/]+\.py)::(\w+)`")


def rows() -> dict[str, list[str]]:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    cells = [[c.strip() for c in line.split("|")[1:-1]] for line in lines if line.startswith("| F")]
    return {row[0]: row[1:] for row in cells}


def marks(place: str) -> set[str]:
    """The requirement rows that a test is marked with."""
    found = _PLACE.fullmatch(place)
    assert found, f"{place} names no test"
    tree = ast.parse((TESTS / found[1]).read_text(encoding="utf-8"))
    functions = [n for n in tree.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    [test] = [f for f in functions if f.name == found[2]]
    return {
        argument.value
        for decorator in test.decorator_list
        for call in ast.walk(decorator)
        if isinstance(call, ast.Call) and ast.unparse(call.func).endswith("mark.req")
        for argument in call.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    }


def test_every_failure_mode_has_its_row_and_every_cell_says_something() -> None:
    assert list(rows()) == [f"F{n}" for n in range(1, 16)]
    assert all(len(row) == 5 and all(row) for row in rows().values())


def test_the_test_that_provokes_a_failure_mode_bears_its_mark() -> None:
    for name, (_, _, _, provoked, twin) in rows().items():
        assert name in marks(provoked), f"{provoked} is not marked with {name}"
        if twin != "the same":
            marks(twin)
