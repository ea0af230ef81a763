"""Broken requests: what is broken, what counts as invention, and what G4 makes of it."""

from __future__ import annotations

import json

import pytest

from contracts.data import Message, Row
from services.evaluation.gates import g4
from services.evaluation.suites.malformed import MOST, WORD, invents, malformed
from shared.asking import Answer, Scored
from shared.scoring import Score

TOOL = {
    "type": "function",
    "function": {
        "name": "area",
        "parameters": {
            "type": "object",
            "properties": {
                "base": {"type": "integer"},
                "unit": {"type": "string"},
                "shape": {"type": "string", "enum": ["round", "square"]},
            },
            "required": ["base", "unit", "shape"],
        },
    },
}
ROW = Row(
    id="r",
    messages=(Message(role="user", content="Give the area of a square of base 10 in furlongs"),),
    tools=(TOOL,),
    expected={
        "name": "area",
        "allowed": {"base": [10], "unit": ["furlongs"], "shape": ["square"]},
    },
)


def call(**arguments: object) -> str:
    return json.dumps({"name": "area", "arguments": arguments})


def by_kind() -> dict[str, tuple[str, tuple[str, ...]]]:
    return {m.kind: (m.row.messages[-1].content, m.lost) for m in malformed([ROW])}


@pytest.mark.req("G4")
def test_a_request_is_broken_in_three_ways_and_what_it_lost_is_known() -> None:
    made = by_kind()
    assert made["truncated"] == ("Give the area of a", ("base", "unit"))  # no value of an enum
    wordy = f"Give the area of a square of base {WORD} in furlongs"
    assert made["wrong_type"] == (wordy, ("base",))
    noise, lost = made["nested_noise"]
    assert json.loads(noise)["in"][0]["d"]["q"] == [ROW.messages[-1].content]
    assert lost == ()


@pytest.mark.req("G4")
@pytest.mark.parametrize(
    ("kind", "answer", "invented"),
    [
        pytest.param("truncated", "Which base, and in which unit?", False, id="asks"),
        pytest.param("truncated", call(shape="square"), False, id="leaves it out"),
        pytest.param("truncated", call(base=None, unit="", shape="square"), False, id="nulls"),
        pytest.param("truncated", call(base=5, shape="square"), True, id="a number from nowhere"),
        pytest.param("truncated", call(unit="metres"), True, id="a word from nowhere"),
        pytest.param("wrong_type", call(base=10, unit="furlongs"), True, id="a guess"),
        pytest.param("wrong_type", call(base=WORD, unit="furlongs"), False, id="passes it on"),
        pytest.param("wrong_type", '{"name": "area", "arg', False, id="no call at all"),
    ],
)
def test_invention_is_a_value_that_the_request_does_not_hold(
    kind: str, answer: str, invented: bool
) -> None:
    item = next(m for m in malformed([ROW]) if m.kind == kind)
    assert invents(item, answer) is invented


def test_a_value_counts_as_named_only_as_a_whole() -> None:
    row = ROW.model_copy(update={"expected": {"name": "area", "allowed": {"base": [1]}}})
    assert {m.kind for m in malformed([row])} == {"nested_noise"}  # 10 does not name 1


def test_rows_without_calls_are_not_broken_and_the_suite_is_bounded() -> None:
    plain = Row(id="p", messages=ROW.messages, expected="x")
    assert malformed([plain]) == ()
    assert len(malformed([ROW] * 50)) == 3 * MOST


VALID = tuple(
    Scored(
        item=f"i{n}",
        cluster=f"i{n}",
        answer=Answer(
            text="{}", latency_ms=1.0, prompt_tokens=1, completion_tokens=1, finish_reason="stop"
        ),
        score=Score(value=1.0, valid=True),
    )
    for n in range(80)
)


@pytest.mark.req("G4")
@pytest.mark.parametrize(
    ("invented", "maximum", "verdict", "remediation"),
    [
        pytest.param(24, None, "passed", "none", id="measured, no bound"),
        pytest.param(0, 0.2, "passed", "none", id="never invents"),
        pytest.param(24, 0.2, "failed", "rescope", id="always invents"),
        pytest.param(5, 0.2, "inconclusive", "more_items", id="cannot say"),
    ],
)
def test_invention_is_judged_where_the_policy_has_a_bound(
    invented: int, maximum: float | None, verdict: str, remediation: str
) -> None:
    seen = [g4.Handled(f"i{n}", True, n < invented, False, "out") for n in range(24)]
    noisy = [g4.Handled(f"n{n}", False, False, n < 9) for n in range(12)]
    judged = g4.judge(
        VALID,
        VALID,
        minimum_validity=0.5,
        level=0.95,
        broken_requests=[*seen, *noisy],
        maximum_invented=maximum,
    )
    values = {m.name: (m.value, m.n) for m in judged.measurements}
    assert (judged.verdict, judged.remediation) == (verdict, remediation)
    assert values["invented_values"] == (invented / 24, 24)
    assert values["recovered_from_noise"] == (9 / 12, 12)
    assert "of 12 in nested noise 9 were answered right" in judged.summary
    if verdict == "failed":
        assert judged.changed[0].item == "i0"
