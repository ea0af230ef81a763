"""The judge: harm is proven, not guessed; a pass says how little it shows."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from itertools import islice

import pytest

from services.rollout.judge import alarm, conclude, judge, looks
from services.rollout.limits import Limits
from services.rollout.stage import Window, window_of
from tests.rollout.traffic import (
    ADAPTER,
    HEALTHY,
    STABLE,
    Behaviour,
    canary_traffic,
    shadow_traffic,
)
from tests.rollout.traffic import (
    outcome as made,
)

LIMITS = Limits(
    minimum_success=0.90,
    maximum_error_rate=0.02,
    minimum_validity=0.90,
    maximum_latency_ratio=3.0,
    maximum_decay=0.02,
    level=0.95,
    stages=5,
)


def judged(traffic, stage="canary", wanted=50, limits=LIMITS):
    """The verdict the stage reaches, and the outcomes it took."""
    window = Window(stage=stage, adapter_id=ADAPTER, ratios=limits.ratios)
    for outcome in traffic:
        window.add(outcome)
        if verdict := judge(window, limits, wanted=wanted):
            return verdict, window.outcomes
    raise AssertionError("the traffic ended before the verdict")


@pytest.mark.req("G8")
@pytest.mark.req("G9")
@pytest.mark.parametrize("stage", ["shadow", "canary"])
@pytest.mark.parametrize(
    ("candidate", "verdict", "says"),
    [
        pytest.param(HEALTHY, "passed", "No evidence of harm", id="healthy"),
        pytest.param(Behaviour(valid=0.4), "failed", "schema kept in", id="broken schema"),
        pytest.param(Behaviour(latency_ms=1500), "failed", "times the stable", id="slow"),
        pytest.param(Behaviour(errors=0.4), "failed", "errors", id="erroring"),
        pytest.param(Behaviour(success=0.3), "failed", "success", id="wrong answers"),
        pytest.param(Behaviour(success=0.84), "inconclusive", "not fit to pass", id="borderline"),
    ],
)
def test_a_stage_is_judged_on_its_outcomes(stage, candidate, verdict, says) -> None:
    traffic = (shadow_traffic if stage == "shadow" else canary_traffic)(candidate, seed=3)
    found, _ = judged(traffic, stage)
    assert found.verdict == verdict
    assert says in found.summary


@pytest.mark.req("G9")
def test_a_broken_candidate_is_stopped_long_before_the_stage_is_complete() -> None:
    verdict, outcomes = judged(canary_traffic(Behaviour(success=0.0), seed=1), wanted=500)
    assert (verdict.verdict, outcomes) == ("failed", 4)


@pytest.mark.req("G9")
def test_decay_against_the_stable_arm_fails_a_candidate_above_the_minimum() -> None:
    limits = replace(LIMITS, minimum_success=0.5)
    traffic = canary_traffic(
        Behaviour(success=0.7), stable=Behaviour(success=1.0, valid=1.0), seed=5
    )
    verdict, _ = judged(traffic, wanted=400, limits=limits)
    assert verdict.verdict == "failed"
    assert "decayed against the stable arm" in verdict.summary


@pytest.mark.req("G9")
@pytest.mark.req("G13")
@pytest.mark.parametrize(
    ("outcomes", "says"),
    [
        pytest.param(1, "1 outcome: too few to prove harm, even if every request had", id="one"),
        pytest.param(4, "4 outcomes: only a failure of every request would show", id="four"),
        pytest.param(50, "50 outcomes: a success of 68% or less would show", id="fifty"),
    ],
)
def test_a_pass_says_what_its_sample_could_have_shown(outcomes, says) -> None:
    perfect = Behaviour(success=1.0, valid=1.0)
    verdict, n = judged(canary_traffic(perfect, seed=2), wanted=outcomes)
    assert (verdict.verdict, n) == ("passed", outcomes)
    assert says in verdict.summary


@pytest.mark.req("G13")
def test_an_estimate_outside_its_limit_prolongs_the_stage_up_to_a_bound() -> None:
    verdict, n = judged(canary_traffic(Behaviour(success=0.84), seed=3))
    assert (verdict.verdict, n) == ("inconclusive", looks(50)[-1])


@pytest.mark.req("G13")
def test_no_verdict_on_success_is_no_pass() -> None:
    silent = (o.model_copy(update={"task_success": None}) for o in canary_traffic(HEALTHY))
    verdict, _ = judged(silent)
    assert verdict.verdict == "inconclusive"
    assert "no outcome says whether the task succeeded" in verdict.summary


@pytest.mark.req("G13")
def test_every_rate_carries_its_sample_size_and_interval() -> None:
    verdict, _ = judged(canary_traffic(HEALTHY, seed=4))
    rates = {m.name: m for m in verdict.measurements}
    assert rates["candidate_success"].n == 50
    assert rates["candidate_success"].interval is not None
    assert rates["latency_p95_ratio"].interval is not None
    (comparison,) = verdict.comparisons
    assert comparison.n == min(50, rates["stable_success"].n)
    assert comparison.detectable is not None


@pytest.mark.req("G8")
def test_shadow_compares_the_two_answers_to_one_request() -> None:
    verdict, pairs = judged(shadow_traffic(HEALTHY, seed=4), "shadow")
    assert pairs == 50
    assert verdict.comparisons[0].n <= 50
    assert verdict.comparisons[0].p_value is not None
    assert {m.name for m in verdict.measurements} >= {"agreement", "latency_p95_ratio"}


@pytest.mark.req("G9")
def test_a_limit_of_one_is_broken_by_one_failure() -> None:
    strict = replace(LIMITS, minimum_success=1.0)
    traffic = list(islice(canary_traffic(Behaviour(success=0.5), seed=1, percent=100), 30))
    window = window_of(traffic, stage="canary", adapter_id=ADAPTER)
    assert alarm(window, strict) is not None


@pytest.mark.req("G9")
def test_healthy_candidates_at_the_very_limit_are_rolled_back_no_more_often_than_stated() -> None:
    """300 rollouts' worth of canary stages whose true success and error rate are the limits."""
    at_limit = Behaviour(success=LIMITS.minimum_success, errors=0.0, valid=1.0)
    stable = Behaviour(success=LIMITS.minimum_success, valid=1.0)
    rolled_back = sum(
        judged(canary_traffic(at_limit, stable=stable, seed=seed), wanted=20)[0].verdict == "failed"
        for seed in range(300)
    )
    # One stage may spend a fifth of the rollout's error of 5 %; 300 of them expect at most 3.
    assert rolled_back <= 7


@pytest.mark.req("G9")
@pytest.mark.parametrize(
    ("candidate", "canaries", "verdict"),
    [
        pytest.param(HEALTHY, 200, "passed", id="healthy"),
        pytest.param(Behaviour(success=0.5), 60, "failed", id="half-broken"),
        pytest.param(Behaviour(errors=0.25), 60, "failed", id="erroring"),
        pytest.param(Behaviour(valid=0.5), 60, "failed", id="schema-breaking"),
        pytest.param(Behaviour(latency_ms=1200), 60, "failed", id="eight times slower"),
    ],
)
def test_healthy_and_broken_canaries_are_told_apart(candidate, canaries, verdict) -> None:
    verdicts = Counter(
        judged(canary_traffic(candidate, seed=seed, stable=STABLE), wanted=40)[0].verdict
        for seed in range(canaries)
    )
    assert verdicts[verdict] >= 0.97 * canaries
    assert verdicts["failed" if verdict == "passed" else "passed"] == 0


def test_judging_one_outcome_at_a_time_equals_judging_the_whole_window() -> None:
    traffic = list(islice(canary_traffic(HEALTHY, seed=9), 400))
    verdict, n = judged(iter(traffic))
    window = Window(stage="canary", adapter_id=ADAPTER)
    for outcome in traffic:
        window.add(outcome)
        if window.outcomes == n:
            break
    assert conclude(window, LIMITS) == verdict


@pytest.mark.req("G9")
def test_a_machine_that_stalls_is_not_a_candidate_that_is_slow() -> None:
    """What is in flight during a stall ends late together: one observation, not forty."""
    window = window_of(
        islice(canary_traffic(HEALTHY, seed=4), 120), stage="canary", adapter_id=ADAPTER
    )

    def slow(number: int, at: float) -> None:
        window.add(
            made(f"slow-{number}", "canary", HEALTHY, random.Random(number), at=at).model_copy(
                update={"latency_ms": 3000 + number}
            )
        )

    for number in range(40):
        slow(number, 123.0)
    assert (window.latency.over, alarm(window, LIMITS)) == (1, None)
    slow(40, 124.5)  # it began during the stall
    assert window.latency.over == 1
    for number in range(41, 81):
        slow(number, 5.0 * number)
    assert "took more than 3 times" in alarm(window, LIMITS).summary
