"""Preference rows derived from right calls: what is preferred is right, what is not is wrong."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import yaml

from contracts.data import Row
from contracts.job import AdaptationJob
from shared.doctrine.fit import unfit_rows
from shared.scoring import ToolCall, resolve, tool_call
from tests.examples.test_tool_calls_example import FOLDER


@pytest.fixture
def preferences(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module("preferences")
    sys.modules.pop("preferences", None)


def row(number: int, **arguments: Any) -> Row:
    properties = {
        name: {"type": "integer" if isinstance(value, int) else "string"}
        for name, value in arguments.items()
    }
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return Row.model_validate(
        {
            "id": f"q{number}",
            "messages": [{"role": "user", "content": f"request {number}"}],
            "tools": [{"type": "function", "function": {"name": "f", "parameters": parameters}}],
            "target": str(ToolCall("f", arguments)),
            "expected": {"name": "f", "allowed": {n: [v] for n, v in arguments.items()}},
        }
    )


ROWS = [row(i, city=f"town {i}", days=i + 2) for i in range(15)]


@pytest.mark.req("T1")
def test_the_preferred_call_is_right_and_the_other_is_wrong_in_every_way_there_is(
    preferences: ModuleType,
) -> None:
    made = preferences.pairs(ROWS)
    assert len(made) == len(ROWS)
    assert all(tool_call(r, r.target).value == 1 for r in made)
    assert all(tool_call(r, r.rejected).value < 1 for r in made)
    kinds = {r.rejected[:7] for r in made}
    assert {"You can", "```json", '{"name"', "f(city="} <= kinds
    assert list(unfit_rows("dpo", made)) == []


@pytest.mark.req("T1")
def test_judged_rows_are_two_thirds_right_and_marked_so(preferences: ModuleType) -> None:
    made = preferences.judged(ROWS)
    assert sum(r.desirable for r in made) == 10
    assert all((tool_call(r, r.target).value == 1) == r.desirable for r in made)
    assert list(unfit_rows("kto", made)) == []


def test_a_right_answer_that_its_scorer_refuses_makes_no_row(preferences: ModuleType) -> None:
    broken = ROWS[0].model_copy(update={"target": str(ToolCall("f", {"city": "elsewhere"}))})
    assert {r.id for r in preferences.pairs([broken, *ROWS[1:3]])} == {"q1-pair", "q2-pair"}


@pytest.mark.parametrize("name", ["dpo", "kto"])
def test_the_jobs_are_valid_and_name_what_prepare_writes(name: str) -> None:
    job = AdaptationJob.model_validate(yaml.safe_load((FOLDER / f"{name}.yaml").read_text()))
    assert resolve(job.behaviour)
    assert job.method.recipe("preference") == name
    assert job.data[0].uri == {"dpo": "data/pairs.jsonl", "kto": "data/judged.jsonl"}[name]
