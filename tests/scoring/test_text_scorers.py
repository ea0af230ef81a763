from __future__ import annotations

from typing import Any

import pytest

from contracts.data import Message, Row
from contracts.job import Behaviour
from shared.errors import InvalidInput
from shared.scoring import Score, resolve, scorer

NUMBER = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def judge(name: str, expected: Any, answer: str, schema: dict[str, Any] | None = None) -> Score:
    row = Row(id="r", messages=(Message(role="user", content="?"),), expected=expected)
    behaviour = Behaviour(description="d", scorer=name, target=0.5, output_schema=schema)
    return resolve(behaviour)(row, answer)


@scorer
def longer_is_better(row: Row, answer: str) -> Score:
    return Score(value=min(1.0, len(answer) / 10), valid=True)


def undeclared(row: Row, answer: str) -> Score:
    return Score(value=1.0, valid=True)


@pytest.mark.req("G3")
@pytest.mark.parametrize(
    ("name", "expected", "answer", "value", "valid"),
    [
        pytest.param("exact_match", "Paris", " Paris\n", 1, True, id="exact, outer space aside"),
        pytest.param("exact_match", ["yes", "Yes"], "Yes", 1, True, id="exact, one of several"),
        pytest.param("exact_match", "Paris", "paris", 0, True, id="exact minds case"),
        pytest.param("exact_match", "Paris", "  ", 0, False, id="empty"),
        pytest.param("regex", r"\d{4}", "2024", 1, True, id="regex"),
        pytest.param("regex", r"\d{4}", "in 2024", 0, True, id="regex matches the whole answer"),
        pytest.param("json_schema", None, '{"n": 1}', 1, True, id="schema of the job"),
        pytest.param("json_schema", None, '{"n": "1"}', 0, False, id="schema broken"),
        pytest.param(
            "json_schema", {"schema": {"type": "array"}}, "[]", 1, True, id="row's schema"
        ),
        pytest.param("json_schema", {"value": {"n": 2}}, '{"n": 1}', 0, True, id="another value"),
    ],
)
def test_plain_answers_are_judged(
    name: str, expected: Any, answer: str, value: float, valid: bool
) -> None:
    score = judge(name, expected, answer, NUMBER)
    assert (score.value, score.valid) == (value, valid)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("exact_match", 3),
        ("exact_match", []),
        ("regex", None),
        ("regex", "("),
        ("json_schema", None),
    ],
)
def test_a_row_without_a_usable_expectation_is_refused(name: str, expected: Any) -> None:
    with pytest.raises(InvalidInput, match="cannot check"):
        judge(name, expected, "x")


def test_a_job_may_bring_its_own_declared_scorer() -> None:
    assert judge(f"{__name__}:longer_is_better", None, "12345").value == 0.5


@pytest.mark.parametrize(
    "name",
    ["sentiment", "os:system", "no_such_module:f", f"{__name__}:undeclared", f"{__name__}:missing"],
)
def test_a_scorer_that_is_not_declared_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="no scorer"):
        judge(name, "x", "x")


def test_a_score_lies_between_0_and_1() -> None:
    with pytest.raises(ValueError, match=r"0\.\.1"):
        Score(value=1.5, valid=True)


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        pytest.param("Two and two is four. Answer: 4", 1, id="the final answer"),
        pytest.param("Answer: 5? No. Answer: 4", 1, id="the last of two"),
        pytest.param("4", 1, id="an answer without the marker"),
        pytest.param("Answer: 4, I think", 0, id="more behind the marker"),
    ],
)
def test_with_a_marker_the_final_answer_alone_is_judged(answer: str, value: float) -> None:
    row = Row(id="r", messages=(Message(role="user", content="?"),), expected="4")
    behaviour = Behaviour(
        description="d", scorer="exact_match", target=0.5, answer_marker="Answer:"
    )
    assert resolve(behaviour)(row, answer).value == value
