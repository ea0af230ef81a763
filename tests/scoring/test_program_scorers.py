"""Programs as answers: judged by what they do, inside the sandbox."""

from __future__ import annotations

import pytest

from contracts.data import Message, Row
from contracts.job import Behaviour
from shared.errors import InvalidInput, Misconfigured
from shared.sandbox import Sandbox
from shared.scoring.program import program_of
from shared.scoring.registry import resolve
from shared.scoring.score import Score

TABLES = "CREATE TABLE t (a INT, b TEXT); INSERT INTO t VALUES (1,'x'),(2,'y'),(2,'z');"


@pytest.fixture(autouse=True, scope="module")
def _sandbox() -> None:
    try:
        Sandbox().run(["true"])
    except Misconfigured as reason:
        pytest.skip(f"{reason}; {reason.mend}")


def score(scorer: str, expected: object, answer: str) -> Score:
    row = Row(id="r", messages=(Message(role="user", content="?"),), expected=expected)
    return resolve(Behaviour(description="d", scorer=scorer, target=1.0))(row, answer)


@pytest.mark.req("G4")
@pytest.mark.parametrize(
    ("answer", "value", "valid"),
    [
        pytest.param("def f(x):\n    return x + 1", 1, True, id="right"),
        pytest.param("```python\ndef f(x):\n    return x + 1\n```\nIt adds.", 1, True, id="fenced"),
        pytest.param("def f(x):\n    return x", 0, True, id="wrong"),
        pytest.param("def f(x) return x", 0, False, id="does-not-compile"),
        pytest.param("", 0, False, id="empty"),
        pytest.param("while True: pass", 0, True, id="endless"),
        pytest.param("import os; os._exit(0)", 0, True, id="leaves-before-its-tests"),
        pytest.param("raise SystemExit", 0, True, id="raises-exit"),
        pytest.param("print('right')\nf = None", 0, True, id="claims"),
        pytest.param("import sys; f = lambda x: sys.stdin.read()", 0, True, id="reads-the-mark"),
    ],
)
def test_python_is_right_if_it_passes_the_tests(answer: str, value: float, valid: bool) -> None:
    scored = score("python_tests", {"tests": "assert f(1) == 2, f(1)\nassert f(2) == 3"}, answer)
    assert (scored.value, scored.valid) == (value, valid), scored.reason


def test_a_failed_test_is_named() -> None:
    wanted = {"tests": "assert f(1) == 2, 'one more than one'"}
    assert "one more than one" in score("python_tests", wanted, "f = lambda x: x").reason


@pytest.mark.req("G4")
@pytest.mark.parametrize(
    ("query", "answer", "value", "valid"),
    [
        pytest.param("SELECT a FROM t", "SELECT a FROM t;", 1, True, id="the-same"),
        pytest.param("SELECT a FROM t", "SELECT a FROM t ORDER BY b DESC", 1, True, id="any-order"),
        pytest.param(
            "SELECT b FROM t ORDER BY b", "SELECT b FROM t ORDER BY b DESC", 0, True, id="ordered"
        ),
        pytest.param("SELECT a FROM t", "SELECT b FROM t", 0, True, id="other-rows"),
        pytest.param("SELECT a FROM t", "SELEC a FROM t", 0, False, id="does-not-parse"),
        pytest.param("SELECT a FROM t", "DROP TABLE t", 0, False, id="writes"),
        pytest.param("SELECT a FROM t", "SELECT 1; DROP TABLE t", 0, False, id="two-statements"),
        pytest.param("SELECT a FROM t", "ATTACH 'x' AS y", 0, False, id="attaches"),
    ],
)
def test_a_query_is_right_if_it_gives_the_rows(
    query: str, answer: str, value: float, valid: bool
) -> None:
    scored = score("sql_query", {"schema": TABLES, "query": query}, answer)
    assert (scored.value, scored.valid) == (value, valid), scored.reason


@pytest.mark.parametrize("scorer", ["python_tests", "sql_query"])
def test_a_row_it_cannot_check_is_named_with_its_mend(scorer: str) -> None:
    with pytest.raises(InvalidInput, match=r"r.expected.*cannot check"):
        score(scorer, "text", "x")


def test_the_program_of_an_answer_is_its_first_block() -> None:
    assert program_of("Here:\n```sql\nSELECT 1\n```\nand\n```\n2\n```") == "SELECT 1"
    assert program_of("  SELECT 1 ") == "SELECT 1"
    assert program_of("```\ncut off") == "cut off"
