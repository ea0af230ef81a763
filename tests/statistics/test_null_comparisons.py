"""False alarms over null comparisons stay at the stated level (G13)."""

from __future__ import annotations

import random

import pytest
from scipy import stats

from shared.statistics import compare_paired, non_inferior

pytestmark = pytest.mark.req("G13")

COMPARISONS = 400


def null_pair(draw: random.Random, n: int) -> tuple[list[float], list[float]]:
    """Two models equally good: they agree on 80 % of the items and flip a coin on the rest."""
    base, candidate = [], []
    for _ in range(n):
        value = float(draw.random() < 0.6)
        agrees = draw.random() < 0.8
        base.append(value)
        candidate.append(value if agrees else float(draw.random() < 0.6))
    return base, candidate


@pytest.mark.parametrize("level", [0.90, 0.95])
def test_a_difference_that_is_not_there_is_found_no_more_often_than_stated(level: float) -> None:
    draw = random.Random(3)
    alarms = 0
    for _ in range(COMPARISONS):
        found = compare_paired("x", *null_pair(draw, 200), level=level).interval
        alarms += found.low > 0 or found.high < 0
    excess = stats.binomtest(alarms, COMPARISONS, 1 - level, alternative="greater")
    assert excess.pvalue > 0.01, f"{alarms} alarms of {COMPARISONS}"


def test_a_model_exactly_at_the_margin_passes_no_more_often_than_stated() -> None:
    """The non-inferiority null: the true loss equals the margin."""
    draw = random.Random(4)
    passed = 0
    for _ in range(COMPARISONS):
        base, candidate = null_pair(draw, 200)
        worse = [c if draw.random() > 1 / 6 else 0.0 for c in candidate]  # 0.6 falls to 0.5
        passed += non_inferior("x", base, worse, margin=0.1, level=0.95).verdict == "passed"
    excess = stats.binomtest(passed, COMPARISONS, 0.05, alternative="greater")
    assert excess.pvalue > 0.01, f"{passed} passes of {COMPARISONS}"
