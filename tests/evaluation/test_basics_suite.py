from __future__ import annotations

import importlib.util
from collections import Counter
from types import ModuleType

import pytest

from contracts.base import digest_of
from services.evaluation.adapters.harness import SUITES


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("basics_items", SUITES / "basics" / "items.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.req("G5")
def test_the_items_are_many_distinct_short_and_balanced() -> None:
    items = load().items()
    assert len(items) == len({item.question for item in items}) == 1700
    assert set(Counter(item.skill for item in items).values()) == {100}
    assert all(len(set(item.choices)) == 2 for item in items)
    assert max(len(item.question.split()) for item in items) <= 24
    first = sum(item.answer == 0 for item in items) / len(items)
    assert 0.45 <= first <= 0.55
    assert len({item.skill for item in items[:17]}) == 17


@pytest.mark.req("G5")
def test_every_ability_that_the_gate_is_for_has_a_skill() -> None:
    module = load()
    assert module.__doc__ is not None
    listed = " ".join(module.__doc__.split("- ", 1)[1].split())
    for ability in ("reasoning", "arithmetic", "code", "instruction", "multilingual", "retrieval"):
        assert ability in listed
    told = listed.replace("number and person agreement", "number agreement, person agreement")
    told = told.replace("calendar and spelling order", "calendar, alphabet")
    told = told.replace("counting on", "counting")
    assert all(skill in told for skill in {item.skill for item in module.items()})


@pytest.mark.req("G5")
def test_the_right_continuations_are_right() -> None:
    for item in load().items():
        right = item.choices[item.answer]
        if item.skill == "counting":
            numbers = [int(n) for n in item.question.rstrip(",").split(", ")]
            assert int(right) == 2 * numbers[-1] - numbers[-2]
        if item.skill == "alphabet":
            assert ord(right) == ord(item.question.rstrip(",")[-1]) + 1
        if item.skill == "arithmetic":
            a, sign, b, _ = item.question.split()
            assert int(right) == (int(a) + int(b) if sign == "+" else int(a) - int(b))
        if item.skill == "retrieval":
            thing = item.question.rsplit("The ", 1)[1].removesuffix(" is in the")
            assert f"The {thing} is in the {right}." in item.question
        if item.skill == "deduction":
            kind = item.question.rsplit(" is a ", 1)[1].partition(".")[0]
            assert f"{kind}s are {right}." in item.question
        if item.skill == "number agreement":
            assert right in {"is", "are"}


def test_a_version_of_the_items_never_changes() -> None:
    """A new digest needs a new `metadata.version` in sluice_basics.yaml, then is written here."""
    text = "\n".join(f"{i.skill}|{i.question}|{i.choices}|{i.answer}" for i in load().items())
    assert digest_of(text.encode())[7:23] == "b58f8a9454919f4f"
