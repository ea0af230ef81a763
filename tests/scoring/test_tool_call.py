from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from contracts.data import Message, Row
from contracts.job import Behaviour
from shared.errors import InvalidInput
from shared.scoring import CallError, ToolCall, call_schema, parse_call, resolve, tool_call

ORDER = {
    "name": "shop.order",
    "description": "Order something.",
    "parameters": {
        "type": "object",
        "properties": {
            "item": {"type": "string"},
            "count": {"type": "integer"},
            "price": {"type": "number"},
            "gift": {"type": "boolean"},
            "sizes": {"type": "array", "items": {"type": "integer"}},
            "address": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "zip": {"type": "string"}},
            },
            "notes": {"type": "array", "items": {"type": "object"}},
        },
        "required": ["item", "count"],
    },
}
ALLOWED: dict[str, list[Any]] = {
    "item": ["St. John's wort", "hypericum"],
    "count": [2],
    "price": [9.5, 10, ""],
    "gift": [True, ""],
    "sizes": [[1, 2], [3], ""],
    "address": [{"city": ["New York", "NYC"], "zip": ["10001", ""]}, ""],
    "notes": [[{"by": ["Ann"]}, {"by": ["Bob"]}], ""],
}
OK = {"item": "hypericum", "count": 2}

# The verdicts are those of bfcl_eval 2026.3.23's own checker on the same call.
CASES: list[tuple[str, dict[str, Any], bool]] = [
    ("only the required arguments", OK, True),
    ("case, spaces and marks do not count", {"item": "ST_JOHN's-Wort", "count": 2}, True),
    ("single quotes equal double quotes", {"item": 'St John"s wort', "count": 2}, True),
    ("another string", {"item": "aspirin", "count": 2}, False),
    ("a required argument is missing", {"item": "hypericum"}, False),
    ("an unknown argument", OK | {"colour": "red"}, False),
    ("another number", OK | {"count": 3}, False),
    ("an integer is good for a number", OK | {"price": 10}, True),
    ("a float equal to an accepted integer", OK | {"price": 10.0}, True),
    ("a float is not good for an integer", {"item": "hypericum", "count": 2.0}, False),
    ("a number as a string", OK | {"price": "9.5"}, False),
    ("a boolean", OK | {"gift": True}, True),
    ("1 is not true", OK | {"gift": 1}, False),
    ("true is not 1", {"item": "hypericum", "count": True}, False),
    ("null", OK | {"gift": None}, False),
    ("a list", OK | {"sizes": [1, 2]}, True),
    ("another accepted list", OK | {"sizes": [3]}, True),
    ("a list in another order", OK | {"sizes": [2, 1]}, False),
    ("a list of another type", OK | {"sizes": ["1", "2"]}, False),
    ("an object", OK | {"address": {"city": "nyc"}}, True),
    ("an object with its optional field", OK | {"address": {"city": "NYC", "zip": "10001"}}, True),
    ("an object without its needed field", OK | {"address": {"zip": "10001"}}, False),
    ("an object with a strange field", OK | {"address": {"city": "NYC", "x": 1}}, False),
    ("objects in order", OK | {"notes": [{"by": "ann"}, {"by": "bob"}]}, True),
    ("objects out of order", OK | {"notes": [{"by": "bob"}, {"by": "ann"}]}, False),
    ("too few objects", OK | {"notes": [{"by": "ann"}]}, False),
]


def row(expected: Any = None, tools: tuple[dict[str, Any], ...] | None = None) -> Row:
    entry = {"type": "function", "function": ORDER}
    return Row(
        id="r",
        messages=(Message(role="user", content="order"),),
        tools=(entry,) if tools is None else tools,
        expected=expected or {"name": "shop.order", "allowed": ALLOWED},
    )


@pytest.mark.req("G3")
@pytest.mark.parametrize(("arguments", "right"), [pytest.param(a, r, id=i) for i, a, r in CASES])
def test_a_call_is_judged_as_the_leaderboard_judges_it(
    arguments: dict[str, Any], right: bool
) -> None:
    score = tool_call(row(), str(ToolCall("shop.order", arguments)))
    assert (score.value == 1.0) is right
    assert bool(score.reason) is not right


@pytest.mark.req("G4")
@pytest.mark.parametrize(
    ("answer", "valid"),
    [
        pytest.param(
            '{"name": "shop.order", "arguments": {"item": "x", "count": 1}}', True, id="call"
        ),
        pytest.param('{"name": "shop.order", "arguments": {"item": "x"}}', False, id="missing"),
        pytest.param('{"name": "other", "arguments": {}}', False, id="unknown function"),
        pytest.param("```json\n{}\n```", False, id="fenced"),
        pytest.param('{"name": "shop.order"}', False, id="no arguments"),
        pytest.param("", False, id="empty"),
        pytest.param("[" * 100_000, False, id="endless nesting"),
        pytest.param('{"name":"shop.order","arguments":{"item":"x","count":NaN}}', False, id="NaN"),
        pytest.param('{"name":"shop.order","arguments":{}} {}', False, id="two values"),
    ],
)
def test_an_answer_is_valid_if_it_parses_and_satisfies_the_signature(
    answer: str, valid: bool
) -> None:
    assert tool_call(row(), answer).valid is valid


@pytest.mark.req("G4")
@pytest.mark.parametrize(
    "text",
    [
        '{"name": "f", "arguments": {"a": 1}}',
        '{"name": "f", "arguments": "{\\"a\\": 1}"}',
        '{"type": "function", "function": {"name": "f", "arguments": "{\\"a\\": 1}"}}',
        '{"tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{\\"a\\": 1}"}}]}',
        '[{"name": "f", "arguments": {"a": 1}}]',
    ],
)
def test_every_form_of_the_same_call_parses_alike(text: str) -> None:
    assert parse_call(text) == ToolCall("f", {"a": 1})


def test_two_calls_are_not_one() -> None:
    with pytest.raises(CallError, match="2 calls"):
        parse_call('[{"name": "f", "arguments": {}}, {"name": "f", "arguments": {}}]')


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.text(), st.dictionaries(st.text(), JSON, max_size=5))
def test_a_call_survives_its_own_text(name: str, arguments: dict[str, Any]) -> None:
    call = ToolCall(name, arguments)
    assert parse_call(str(call)) == call


@given(st.text(max_size=200))
def test_any_text_gets_a_score(text: str) -> None:
    score = tool_call(row(), text)
    assert score.value == 0.0
    assert score.reason


@given(st.dictionaries(st.sampled_from([*ALLOWED, "other"]), JSON, max_size=6))
def test_a_right_call_is_always_valid_and_allowed_by_the_constraining_schema(
    arguments: dict[str, Any],
) -> None:
    call = {"name": "shop.order", "arguments": arguments}
    score = tool_call(row(), json.dumps(call))
    assert score.valid or score.value == 0.0
    if score.value == 1.0:
        schema = call_schema([{"type": "function", "function": ORDER}])
        Draft202012Validator(schema).validate(call)


@pytest.mark.req("V7")
def test_the_call_schema_admits_only_the_named_functions_own_arguments() -> None:
    other = {
        "type": "function",
        "function": {
            "name": "ping",
            "parameters": {
                "type": "object",
                "properties": {"to": {"$ref": "#/$defs/host"}},
                "$defs": {"host": {"type": "string"}},
            },
        },
    }
    schema = call_schema([{"type": "function", "function": ORDER}, other])
    validator = Draft202012Validator(schema)
    Draft202012Validator.check_schema(schema)
    assert validator.is_valid({"name": "ping", "arguments": {"to": "a"}})
    assert validator.is_valid({"name": "shop.order", "arguments": OK})
    assert not validator.is_valid({"name": "ping", "arguments": {"to": 1}})
    assert not validator.is_valid({"name": "ping", "arguments": OK})
    assert not validator.is_valid({"name": "pong", "arguments": {}})
    assert not validator.is_valid({"name": "ping", "arguments": {}, "more": 1})


def test_a_call_schema_needs_a_tool() -> None:
    with pytest.raises(ValueError, match="no tools"):
        call_schema([])


@pytest.mark.parametrize("expected", ["text", {"name": "f"}, {"name": "f", "allowed": {"a": 1}}])
def test_a_row_that_cannot_be_checked_is_named(expected: Any) -> None:
    with pytest.raises(InvalidInput, match=r"r\.expected"):
        tool_call(row(expected), "{}")


def test_the_scorer_of_a_job_is_found_by_name() -> None:
    assert resolve(Behaviour(description="d", scorer="tool_call", target=0.5)) is tool_call


def test_a_value_outside_its_enum_is_not_right_even_if_it_would_compare_equal() -> None:
    function = {
        "name": "sort",
        "parameters": {"type": "object", "properties": {"by": {"enum": ["up"], "type": "string"}}},
    }
    judged = row({"name": "sort", "allowed": {"by": ["up"]}}, ({"function": function},))
    assert tool_call(judged, '{"name": "sort", "arguments": {"by": "up"}}').value == 1.0
    score = tool_call(judged, '{"name": "sort", "arguments": {"by": "UP"}}')
    assert (score.value, score.valid) == (0.0, False)
