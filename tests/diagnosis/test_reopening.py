"""What re-opens a decision not to train."""

import pytest

from contracts.base import Problem
from contracts.commands import Observe
from contracts.diagnosis import (
    DiagnosisHalted,
    RunAccepted,
    TrainingAdvised,
    TrainingDeclined,
    TrainingVetoed,
)
from contracts.run import fold
from contracts.subjects import RunRef
from services.diagnosis.checks import economic_problems
from services.diagnosis.method import choose
from services.diagnosis.reopening import conditions, observed, reconsidered
from services.diagnosis.verdict import decide, measured_rung
from shared.testing.runs import recorded_log
from tests.diagnosis.jobs import job, scored

DIGEST = "sha256:" + "0" * 64
PRICES = {
    "price_per_mtok": 0.15,
    "teacher_price_per_mtok": 15.0,
    "one_off": {"training": 5700.0},
    "tokens_per_request": 1000,
    "horizon_months": 12,
    "monthly_requests": 30_000,
}


def seen(quantity: str, value: float) -> Observe:
    return Observe.model_validate({"quantity": quantity, "value": value, "source": "meter"})


def declined(**changes):
    """A run that few-shot was enough for: 100 % of the items, asked in 40 ms at 2.0 per Mtok."""
    asked = job(economics__price_per_mtok=2.0, economics__monthly_requests=1000, **changes)
    rung = measured_rung("few_shot", ["3"], [scored([1, 1, 1, 1], latency_ms=40)])
    verdict = decide(asked, scored([0, 0, 0, 1]), [rung])
    assert verdict.rung == "few_shot"
    bounds = conditions(asked, verdict.diagnosis, verdict.rung)
    return asked, TrainingDeclined(
        diagnosis=verdict.diagnosis, rung="few_shot", certificate=DIGEST, conditions=bounds
    )


def run_of(*events):
    ref = RunRef("demo", "r")
    return fold(ref, recorded_log(ref, events))


def accepted(asked):
    return RunAccepted(job=asked, job_digest=DIGEST)


@pytest.mark.req("D4")
@pytest.mark.parametrize(
    ("quantity", "stands", "breaks"),
    [
        ("success", 0.5, 0.49),
        ("price_per_mtok", 2.4, 2.41),
        ("monthly_requests", 2000, 2001),
        ("latency_ms", 80, 81),
    ],
)
def test_an_observation_beyond_its_bound_reopens_the_question(quantity, stands, breaks) -> None:
    asked, fact = declined()
    run = run_of(accepted(asked), fact)
    assert reconsidered(run, seen(quantity, stands)) is None
    reopened = reconsidered(run, seen(quantity, breaks))
    assert reopened is not None
    assert reopened.source == "meter"
    assert f"{breaks:g}" in reopened.reason
    assert "few_shot" in reopened.reason


def test_a_quantity_without_a_bound_or_a_run_that_trains_stays_as_it_is() -> None:
    asked, fact = declined()
    assert reconsidered(run_of(accepted(asked), fact), seen("fallback_rate", 1.0)) is None
    advised = TrainingAdvised(diagnosis=fact.diagnosis, choice=choose(asked, 500))
    assert reconsidered(run_of(accepted(asked), advised), seen("success", 0.0)) is None
    assert reconsidered(run_of(accepted(asked)), seen("success", 0.0)) is None


@pytest.mark.req("E2")
@pytest.mark.parametrize(
    ("quantity", "stands", "breaks"),
    [
        ("monthly_requests", 31_000, 32_000),
        ("teacher_price_per_mtok", 15.5, 20.0),
        ("price_per_mtok", 0.10, None),
    ],
)
def test_a_veto_is_computed_anew_from_what_is_seen(quantity, stands, breaks) -> None:
    asked = job(economics=PRICES)
    problems = economic_problems(asked)
    assert problems
    run = run_of(accepted(asked), TrainingVetoed(problems=problems))
    assert reconsidered(run, seen(quantity, stands)) is None
    if breaks is None:
        return
    reopened = reconsidered(run, seen(quantity, breaks))
    assert reopened is not None
    after = observed(asked, (reopened,))
    assert getattr(after.economics, quantity) == breaks
    assert economic_problems(after) == ()


@pytest.mark.req("E2")
def test_a_fallback_rate_that_falls_reopens_a_veto() -> None:
    asked = job(economics=PRICES | {"monthly_requests": 33_000, "fallback_rate": 0.2})
    run = run_of(accepted(asked), TrainingVetoed(problems=economic_problems(asked)))
    assert reconsidered(run, seen("fallback_rate", 0.15)) is None
    assert reconsidered(run, seen("fallback_rate", 0.01)) is not None


def test_another_halt_is_not_reopened_by_prices() -> None:
    gap = Problem(where="evaluation.dev", problem="8 items", mend="add items")
    run = run_of(
        accepted(job(economics=PRICES)), DiagnosisHalted(reason="evaluation_gap", problems=(gap,))
    )
    assert reconsidered(run, seen("monthly_requests", 10**9)) is None
