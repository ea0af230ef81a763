"""The economic veto: a student that does not pay for itself in time is not trained."""

import pytest

from services.diagnosis.checks import economic_problems
from tests.diagnosis.jobs import job

LEDGER = {
    "price_per_mtok": 0.15,
    "teacher_price_per_mtok": 15.0,
    "one_off": {"training": 5700.0},
    "tokens_per_request": 1000,
    "horizon_months": 12,
}


def problems(**economics):
    return economic_problems(job(economics={**LEDGER, **economics}))


@pytest.mark.req("E2")
@pytest.mark.req("H3")
def test_a_job_whose_traffic_misses_break_even_is_refused_with_the_numbers() -> None:
    (problem,) = problems(monthly_requests=30_000)
    assert problem.where == "economics"
    assert "383,838 requests break even; 360,000 are projected in 12 months" in problem.problem
    assert "sluice economics" in problem.mend


@pytest.mark.req("E2")
def test_a_student_no_cheaper_than_its_teacher_is_refused() -> None:
    (problem,) = problems(monthly_requests=10**9, fallback_rate=0.995)
    assert "no volume breaks even" in problem.problem


@pytest.mark.req("E2")
@pytest.mark.parametrize("economics", [{"monthly_requests": 32_000}, {"monthly_requests": None}])
def test_enough_traffic_or_an_unknown_one_is_no_veto(economics) -> None:
    assert problems(**economics) == ()
