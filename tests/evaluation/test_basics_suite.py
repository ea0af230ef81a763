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
    assert len(items) == len({item.question for item in items}) == 1200
    assert set(Counter(item.skill for item in items).values()) == {100}
    assert all(len(set(item.choices)) == 2 for item in items)
    assert max(len(item.question.split()) for item in items) <= 16
    first = sum(item.answer == 0 for item in items) / len(items)
    assert 0.45 <= first <= 0.55
    assert len({item.skill for item in items[:12]}) == 12


@pytest.mark.req("G5")
def test_the_right_continuations_are_right() -> None:
    for item in load().items():
        right = item.choices[item.answer]
        if item.skill == "counting":
            numbers = [int(n) for n in item.question.rstrip(",").split(", ")]
            assert int(right) == 2 * numbers[-1] - numbers[-2]
        if item.skill == "alphabet":
            assert ord(right) == ord(item.question.rstrip(",")[-1]) + 1
        if item.skill == "number agreement":
            assert right in {"is", "are"}


def test_a_version_of_the_items_never_changes() -> None:
    """A new digest needs a new `metadata.version` in sluice_basics.yaml, then is written here."""
    text = "\n".join(f"{i.skill}|{i.question}|{i.choices}|{i.answer}" for i in load().items())
    assert digest_of(text.encode())[7:23] == "3458b7fe292782f2"
