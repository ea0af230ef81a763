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
    assert len(items) == len({item.question for item in items}) == 720
    assert set(Counter(item.skill for item in items).values()) == {90}
    assert all(2 <= len(set(item.choices)) <= 3 for item in items)
    assert max(len(item.question.split()) for item in items) <= 16
    first = sum(item.answer == 0 for item in items) / len(items)
    assert 0.30 <= first <= 0.45
    assert len({item.skill for item in items[:8]}) == 8


@pytest.mark.req("G5")
def test_sums_and_sizes_are_right() -> None:
    for item in load().items():
        right = item.choices[item.answer]
        if item.skill == "sums":
            a, sign, b, _ = item.question.split()
            assert int(right) == (int(a) + int(b) if sign == "+" else int(a) - int(b))
        if item.skill == "number size":
            pick = max if "larger" in item.question else min
            assert int(right) == pick(map(int, item.choices))
        if item.skill == "inference":
            assert item.question.startswith(right)


def test_a_version_of_the_items_never_changes() -> None:
    """A new digest needs a new `metadata.version` in sluice_basics.yaml, then is written here."""
    text = "\n".join(f"{i.skill}|{i.question}|{i.choices}|{i.answer}" for i in load().items())
    assert digest_of(text.encode())[7:23] == "4f8b0a507d5f365a"
