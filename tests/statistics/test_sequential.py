from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta

from shared.statistics import (
    difference_sequence,
    evidence_above,
    evidence_below,
    rate_sequence,
    wilson,
)

pytestmark = [pytest.mark.req("G13"), pytest.mark.req("M1")]


def _ever(rng: random.Random, rate: float, outcomes: int, alarm: object) -> int | None:
    """After how many outcomes `alarm(successes, n)` first says yes, looking after each."""
    assert callable(alarm)
    successes = 0
    for n in range(1, outcomes + 1):
        successes += rng.random() < rate
        if alarm(successes, n):
            return n
    return None


def test_looking_after_every_outcome_keeps_the_false_alarm_rate() -> None:
    """At the worst rate of the null, 0.90 itself, evidence of 20 comes at most 5 times in 100."""
    rng = random.Random(0)

    def alarm(s: int, n: int) -> bool:
        return evidence_below(0.90, s, n) >= 20

    alarms = sum(_ever(rng, 0.90, 400, alarm) is not None for _ in range(300))
    assert alarms / 300 <= 0.05 + 3 * (0.05 * 0.95 / 300) ** 0.5


def test_the_window_rule_cries_wolf_where_evidence_does_not() -> None:
    """ERRATA 11: at a true 95 % the literal rule fires in the end; the e-value stays quiet."""
    rng = random.Random(1)
    outcomes = [rng.random() < 0.95 for _ in range(10_000)]
    window = any(sum(outcomes[i - 100 : i]) < 90 for i in range(100, 10_001))
    successes = 0
    largest = 0.0
    for n, outcome in enumerate(outcomes, 1):
        successes += outcome
        largest = max(largest, evidence_below(0.90, successes, n))
    assert window
    assert largest < 20


def test_a_broken_candidate_is_found_soon() -> None:
    rng = random.Random(2)

    def alarm(s: int, n: int) -> bool:
        return evidence_below(0.90, s, n) >= 20

    found = sorted(_ever(rng, 0.5, 500, alarm) or 500 for _ in range(100))
    assert found[50] <= 20
    assert found[-1] <= 80


def test_too_many_errors_are_found() -> None:
    assert evidence_above(0.02, events=5, n=20) > 20
    assert evidence_above(0.02, events=0, n=200) < 1


def test_evidence_is_a_supermartingale_step_by_step() -> None:
    """E[E(n+1)] <= E(n) under every rate of the null, for every state: the law behind Ville."""
    for threshold in (0.5, 0.9, 0.98):
        for n in range(0, 40, 3):
            for successes in range(n + 1):
                now = evidence_below(threshold, successes, n)
                win = evidence_below(threshold, successes + 1, n + 1)
                lose = evidence_below(threshold, successes, n + 1)
                for rate in (threshold, (1 + threshold) / 2, 1.0):
                    assert rate * win + (1 - rate) * lose <= now * (1 + 1e-9)


@given(st.integers(0, 300), st.integers(0, 300))
def test_a_rate_sequence_holds_its_rate_and_contains_the_fixed_interval(s: int, f: int) -> None:
    sequence = rate_sequence(s, s + f)
    assert 0 <= sequence.low <= sequence.high <= 1
    if s + f:
        assert sequence.low <= s / (s + f) <= sequence.high
        if s and f:
            fixed = wilson(s, s + f)
            assert sequence.low < fixed.low
            assert sequence.high > fixed.high


def test_a_rate_sequence_is_the_level_set_of_robbins_mixture() -> None:
    sequence = rate_sequence(37, 50, level=0.95)
    for edge in (sequence.low, sequence.high):
        posterior_over_prior = beta(38, 14).pdf(edge)  # = likelihood / mixture, by Bayes
        assert posterior_over_prior == pytest.approx(0.05, rel=1e-6)


def test_rate_and_difference_sequences_are_right_at_all_times() -> None:
    rng = random.Random(4)
    wrong_rate = wrong_difference = 0
    for _ in range(200):
        a = b = 0
        rate_missed = difference_missed = False
        for n in range(1, 200):
            a += rng.random() < 0.9
            b += rng.random() < 0.7
            if n % 3 == 0:
                interval = rate_sequence(b, n)
                rate_missed |= not interval.low <= 0.7 <= interval.high
                gap = difference_sequence((a, n), (b, n))
                difference_missed |= not gap.low <= -0.2 <= gap.high
        wrong_rate += rate_missed
        wrong_difference += difference_missed
    assert wrong_rate / 200 <= 0.05
    assert wrong_difference / 200 <= 0.05


def test_a_difference_sequence_finds_a_difference() -> None:
    assert difference_sequence((180, 200), (100, 200)).high < 0


@pytest.mark.parametrize("arguments", [(0.0, 1, 2), (1.0, 1, 2), (0.9, 3, 2)])
def test_impossible_counts_are_refused(arguments: tuple[float, int, int]) -> None:
    with pytest.raises(ValueError, match=r"threshold|successes"):
        evidence_below(*arguments)
