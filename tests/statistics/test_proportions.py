from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from shared.statistics import (
    compare_paired,
    compare_two_samples,
    mcnemar_p,
    mean_with_interval,
    non_inferior,
    paired_bootstrap,
    paired_difference,
    percentile_ratio,
    proportion,
    wilson,
)

pytestmark = pytest.mark.req("G13")


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (3, 10), (10, 10), (81, 263), (1, 1000)])
@pytest.mark.parametrize("level", [0.90, 0.95, 0.99])
def test_wilson_equals_statsmodels(successes: int, n: int, level: float) -> None:
    ours = wilson(successes, n, level)
    theirs = proportion_confint(successes, n, 1 - level, method="wilson")
    assert (ours.low, ours.high) == pytest.approx(theirs, abs=1e-12)


def test_no_items_say_nothing() -> None:
    nothing = proportion("success", 0, 0)
    assert (nothing.n, nothing.interval.low, nothing.interval.high) == (0, 0.0, 1.0)  # type: ignore[union-attr]


@pytest.mark.parametrize(("a", "b"), [((48, 80), (56, 70)), ((3, 10), (9, 10)), ((0, 20), (0, 30))])
def test_two_independent_rates_equal_statsmodels_newcombe(
    a: tuple[int, int], b: tuple[int, int]
) -> None:
    ours = compare_two_samples("success", baseline=a, candidate=b)
    theirs = confint_proportions_2indep(*b, *a, method="newcomb")
    assert (ours.interval.low, ours.interval.high) == pytest.approx(theirs, abs=1e-9)


def test_two_independent_rates_equal_newcombes_published_example() -> None:
    ours = compare_two_samples("success", baseline=(48, 80), candidate=(56, 70))
    assert ours.interval.low == pytest.approx(0.0524, abs=5e-5)
    assert ours.interval.high == pytest.approx(0.3339, abs=5e-5)


@pytest.mark.parametrize(
    ("cells", "low", "high"),
    [
        pytest.param((36, 2, 12, 0), 0.0569, 0.3404, id="36 12 2 0"),
    ],
)
def test_paired_interval_equals_newcombes_published_table(
    cells: tuple[int, int, int, int], low: float, high: float
) -> None:
    both, lost, gained, neither = cells
    ours = paired_difference(both, lost, gained, neither)
    assert (ours.low, ours.high) == pytest.approx((low, high), abs=5e-5)


@given(*[st.integers(0, 60)] * 4)
def test_paired_interval_holds_its_estimate_and_mirrors(e: int, f: int, g: int, h: int) -> None:
    ours = paired_difference(e, f, g, h)
    n = e + f + g + h
    if n:
        assert ours.low - 1e-12 <= (g - f) / n <= ours.high + 1e-12
    mirrored = paired_difference(e, g, f, h)
    assert (mirrored.low, mirrored.high) == pytest.approx((-ours.high, -ours.low))
    assert -1 <= ours.low <= ours.high <= 1


def test_paired_interval_covers_as_often_as_it_says() -> None:
    rng = random.Random(3)
    truth, hits = 0.10, 0
    for _ in range(2000):
        cells = rng.choices(range(4), weights=[0.5, 0.05, 0.15, 0.3], k=80)
        both, lost, gained, neither = (cells.count(k) for k in range(4))
        interval = paired_difference(both, lost, gained, neither)
        hits += interval.low <= truth <= interval.high
    assert 0.935 <= hits / 2000 <= 0.985


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (12, 2), (5, 5), (1, 0), (300, 250)])
def test_mcnemar_equals_statsmodels(gained: int, lost: int) -> None:
    table = [[10, lost], [gained, 7]]
    theirs = 1.0 if gained + lost == 0 else float(mcnemar(table, exact=True).pvalue)
    assert mcnemar_p(gained, lost) == pytest.approx(theirs)


def test_bootstrap_equals_scipys_on_independent_items() -> None:
    rng = random.Random(0)
    values = [rng.gauss(0.2, 1.0) for _ in range(120)]
    ours = paired_bootstrap(values, resamples=8000)
    theirs = stats.bootstrap(
        (values,), lambda x, axis: x.mean(axis=axis), n_resamples=8000, method="percentile", rng=1
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.02)


def test_bootstrap_is_repeatable_and_clusters_widen_it() -> None:
    rng = random.Random(1)
    effects = [rng.gauss(0, 1) for _ in range(30)]
    values = [effects[i // 10] + rng.gauss(0, 0.1) for i in range(300)]
    clusters = [i // 10 for i in range(300)]
    alone = paired_bootstrap(values)
    assert alone == paired_bootstrap(values)
    together = paired_bootstrap(values, clusters)
    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_the_comparison_of_binary_items_has_its_numbers() -> None:
    baseline = [1.0] * 38 + [0.0] * 12
    candidate = [1.0] * 36 + [0.0] * 2 + [1.0] * 12
    result = compare_paired("success", baseline, candidate)
    assert (result.n, result.baseline, result.candidate) == (50, 0.76, 0.96)
    assert result.difference == pytest.approx(0.20)
    assert (result.interval.low, result.interval.high) == pytest.approx((0.0569, 0.3404), abs=5e-5)
    assert result.p_value == pytest.approx(float(mcnemar([[36, 2], [12, 0]], exact=True).pvalue))
    assert result.detectable is not None


def test_clustered_binary_items_are_not_treated_as_independent() -> None:
    baseline, candidate = [0.0] * 40, [1.0] * 20 + [0.0] * 20
    groups = [i // 10 for i in range(40)]
    clustered = compare_paired("success", baseline, candidate, groups)
    independent = compare_paired("success", baseline, candidate)
    assert clustered.p_value is None
    assert clustered.interval.low < independent.interval.low
    mean = mean_with_interval("success", candidate, groups)
    assert mean.interval is not None
    assert mean.interval.low < mean_with_interval("success", candidate).interval.low  # type: ignore[union-attr]


def test_unequal_samples_are_no_pairs() -> None:
    with pytest.raises(ValueError, match="against"):
        compare_paired("success", [1.0], [1.0, 0.0])


def _answers(n: int, both: int, lost: int, gained: int) -> tuple[list[float], list[float]]:
    neither = n - both - lost - gained
    baseline = [1.0] * both + [1.0] * lost + [0.0] * gained + [0.0] * neither
    candidate = [1.0] * both + [0.0] * lost + [1.0] * gained + [0.0] * neither
    return baseline, candidate


@pytest.mark.req("G5")
@pytest.mark.parametrize(
    ("n", "both", "lost", "gained", "verdict"),
    [
        pytest.param(1550, 800, 77, 77, "passed", id="equal models, enough items"),
        pytest.param(100, 55, 5, 5, "inconclusive", id="equal models, too few items"),
        pytest.param(1550, 800, 140, 20, "failed", id="clear decay"),
        pytest.param(600, 400, 0, 0, "passed", id="identical answers"),
        pytest.param(100, 55, 0, 20, "passed", id="clearly better"),
        pytest.param(0, 0, 0, 0, "inconclusive", id="no items"),
    ],
)
def test_non_inferiority_never_passes_on_too_little(
    n: int, both: int, lost: int, gained: int, verdict: str
) -> None:
    result = non_inferior("accuracy", *_answers(n, both, lost, gained), margin=0.02)
    assert result.verdict == verdict
    assert result.comparison.interval.level == pytest.approx(0.90)
    if verdict == "inconclusive":
        assert result.comparison.detectable is not None
        assert result.comparison.detectable > 0.02


def test_a_decay_at_the_margin_passes_at_most_5_in_100_times() -> None:
    rng = random.Random(5)
    passes = 0
    for _ in range(600):
        cells = rng.choices(range(4), weights=[0.6, 0.06, 0.04, 0.3], k=400)
        lost, gained = cells.count(1), cells.count(2)
        pair = _answers(400, cells.count(0), lost, gained)
        passes += non_inferior("accuracy", *pair, margin=0.02).verdict == "passed"
    assert passes / 600 <= 0.075  # 0.05 and three standard errors


def test_latency_ratio_finds_a_slowdown_and_no_slowdown() -> None:
    rng = random.Random(2)
    base = [rng.lognormvariate(4, 0.3) for _ in range(400)]
    same = percentile_ratio("p95", base, [rng.lognormvariate(4, 0.3) for _ in range(400)])
    slow = percentile_ratio("p95", base, [3 * rng.lognormvariate(4, 0.3) for _ in range(400)])
    assert same.interval is not None
    assert slow.interval is not None
    assert same.interval.low < 1.0 < same.interval.high
    assert 2.0 < slow.interval.low < slow.value < slow.interval.high < 4.5
    assert percentile_ratio("p95", [], [1.0]).n == 0
