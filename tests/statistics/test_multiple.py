"""Holm's correction against statsmodels, and slices that raise no false alarm together."""

from __future__ import annotations

import random

import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from shared.statistics import compare_slices, fallen, holm

pytestmark = pytest.mark.req("G13")


@pytest.mark.parametrize("count", [1, 2, 5, 30])
def test_adjusted_p_values_are_those_of_statsmodels(count: int) -> None:
    draw = random.Random(count)
    for _ in range(25):
        p_values = [draw.random() ** 3 for _ in range(count)]
        p_values[-1] = p_values[0]  # ties
        expected = multipletests(p_values, method="holm")[1]
        assert holm(p_values) == pytest.approx(list(expected))


def test_a_published_example() -> None:
    """Four p-values: 0.005 and 0.01 stand at 5 %, 0.03 and 0.04 fall together."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


def sliced(draw: random.Random, fall: float = 0.0) -> list[float]:
    """Values of twelve slices of 40 items; the first slice of the candidate falls by `fall`."""
    values = []
    for number in range(12 * 40):
        rate = 0.7 - (fall if number < 40 else 0.0)
        values.append(float(draw.random() < rate))
    return values


SLICES = [f"s{number // 40}" for number in range(12 * 40)]


def test_a_slice_that_fell_is_named_and_null_slices_seldom_are() -> None:
    draw = random.Random(5)
    alarms = naive = 0
    for _ in range(200):
        found = compare_slices("skill", SLICES, sliced(draw), sliced(draw), level=0.9)
        alarms += bool(fallen(found, level=0.95))
        naive += any(c.p_value is not None and c.p_value <= 0.05 for c in found)
    assert stats.binomtest(alarms, 200, 0.05, alternative="greater").pvalue > 0.01
    assert naive > 3 * alarms
    broken = compare_slices("skill", SLICES, sliced(draw), sliced(draw, 0.6), level=0.9)
    assert [c.metric for c in fallen(broken, level=0.95)] == ["skill:s0"]


def test_one_slice_is_none_and_clusters_are_not_tested_as_if_independent() -> None:
    assert compare_slices("x", ["a", "a"], [1, 0], [0, 0]) == ()
    found = compare_slices("x", ["a", "a", "b"], [1, 1, 1], [0, 0, 0], ["c", "c", "d"])
    assert [c.adjusted_p is None for c in found] == [True, False]
