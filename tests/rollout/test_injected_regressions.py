"""Regressions injected into simulated traffic: all rolled back in time, no healthy candidate ever.

In time: within 200 requests that the candidate answered, or mirrored (issue: 20 of 20, 0 of 50).
"""

from __future__ import annotations

import pytest

from contracts.rollout import StageName
from services.rollout.judge import Verdict, judge
from services.rollout.limits import Limits
from services.rollout.stage import Window
from tests.rollout.traffic import (
    ADAPTER,
    HEALTHY,
    STABLE,
    Behaviour,
    canary_traffic,
    feedback,
    shadow_traffic,
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
IN_TIME = 200
QUALITY, SCHEMA = Behaviour(success=0.6), Behaviour(valid=0.2, success=1.0)
LATENCY, EXCEPTIONS = Behaviour(latency_ms=1500), Behaviour(errors=0.2)
COST, REFUSALS = Behaviour(tokens=300), Behaviour(refuses=0.5)
DRIFT = Behaviour(surprise=2.0)
SAFETY, OVERRIDES = Behaviour(incidents=0.05), Behaviour(overridden=0.25)

INJECTED: list[tuple[str, Behaviour, StageName, int, str]] = [
    (name, behaviour, stage, seed, says)
    for name, behaviour, says in (
        ("quality", QUALITY, "success"),
        ("schema", SCHEMA, "schema kept"),
        ("latency", LATENCY, "took more than 3 times"),
        ("exceptions", EXCEPTIONS, "errors"),
        ("cost", COST, "cost more tokens"),
        ("refusals", REFUSALS, "refused"),
        ("drift", DRIFT, "perplexity"),
    )
    for stage, seed in (("shadow", 1), ("canary", 2))
] + [
    (name, behaviour, "canary", seed, says)
    for name, behaviour, says in (
        ("safety", SAFETY, "safety incident"),
        ("overrides", OVERRIDES, "overrode"),
    )
    for seed in (1, 2, 3)
]


def judged(stage: StageName, candidate: Behaviour, seed: int, *, wanted: int, percent: float = 10):
    """The verdict on one stage, and how many of the candidate's answers it took."""
    window = Window(stage=stage, adapter_id=ADAPTER, ratios=LIMITS.ratios)
    if stage == "shadow":
        traffic = shadow_traffic(candidate, seed=seed)
    else:
        traffic = canary_traffic(candidate, seed=seed, percent=percent)
    found: Verdict | None = None
    for outcome in traffic:
        behaviour = STABLE if outcome.arm == "stable" else candidate
        people = [] if outcome.arm == "shadow" else feedback(outcome, behaviour)
        for signal in (outcome, *people):
            if window.count(signal) and (found := judge(window, LIMITS, wanted=wanted)):
                return found, window.candidate.n
    raise AssertionError("traffic does not end")


def test_twenty_regressions_of_nine_kinds_are_injected() -> None:
    assert len(INJECTED) == 20
    assert len({name for name, *_ in INJECTED}) == 9


@pytest.mark.req("G8")
@pytest.mark.req("G9")
@pytest.mark.parametrize(
    ("candidate", "stage", "seed", "says"),
    [
        pytest.param(behaviour, stage, seed, says, id=f"{name} in {stage} {seed}")
        for name, behaviour, stage, seed, says in INJECTED
    ],
)
def test_an_injected_regression_is_rolled_back_within_200_requests(
    candidate, stage, seed, says
) -> None:
    verdict, requests = judged(stage, candidate, seed, wanted=400)
    assert verdict.verdict == "failed"
    assert says in verdict.summary.split("Evidence of harm: ")[1]
    assert requests <= IN_TIME


@pytest.mark.req("G9")
@pytest.mark.parametrize("seed", range(50))
def test_a_healthy_candidate_is_never_rolled_back_on_any_rung(seed) -> None:
    for percent in (0, 10, 50):
        stage: StageName = "canary" if percent else "shadow"
        verdict, _ = judged(stage, HEALTHY, 100 * seed + percent, wanted=50, percent=percent)
        assert verdict.verdict != "failed", verdict.summary
