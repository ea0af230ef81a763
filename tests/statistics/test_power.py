from __future__ import annotations

import random

import pytest
from statsmodels.stats.proportion import power_proportions_2indep

from shared.statistics import (
    detectable_paired,
    detectable_two_sample,
    items_for_paired,
    mcnemar_p,
)

pytestmark = pytest.mark.req("G13")


@pytest.mark.parametrize(("discordance", "items"), [(0.06, 928), (0.10, 1546)])
def test_two_points_need_about_930_to_1550_paired_items(discordance: float, items: int) -> None:
    """ERRATA 10."""
    needed = items_for_paired(0.02, discordance, sides=1)
    assert needed == pytest.approx(items, abs=2)
    assert detectable_paired(needed, discordance, sides=1) == pytest.approx(0.02, abs=1e-4)


def test_a_paired_difference_of_that_size_is_found_about_8_times_in_10() -> None:
    n, discordance = 200, 0.3
    delta = detectable_paired(n, discordance)
    gain, loss = (discordance + delta) / 2, (discordance - delta) / 2
    rng = random.Random(0)
    found = 0
    for _ in range(800):
        cells = rng.choices(["g", "l", "."], weights=[gain, loss, 1 - discordance], k=n)
        found += mcnemar_p(cells.count("g"), cells.count("l")) < 0.05
    assert 0.72 <= found / 800 <= 0.86


@pytest.mark.parametrize(("n1", "n2", "rate"), [(100, 100, 0.9), (500, 50, 0.95), (200, 200, 0.1)])
def test_two_sample_power_agrees_with_statsmodels(n1: int, n2: int, rate: float) -> None:
    delta = detectable_two_sample(n1, n2, rate)
    diff = -delta if rate >= 0.5 else delta
    power = power_proportions_2indep(diff, rate, nobs1=n2, ratio=n1 / n2).power
    assert power == pytest.approx(0.80, abs=0.03)


def test_a_sample_too_small_to_find_anything_says_so() -> None:
    assert detectable_two_sample(2, 2, 0.9) == 1.0
    assert detectable_two_sample(0, 5, 0.9) == 1.0
    assert detectable_paired(0, 0.1) == 1.0
