from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from contracts.diagnosis import RungName
from contracts.job import AdaptationJob
from services.diagnosis.checks import job_problems
from services.diagnosis.ladder import LADDER, ladder
from services.diagnosis.method import RANGES, choose, preflight
from services.diagnosis.rungs import exemplars, trials
from services.diagnosis.verdict import MeasuredRung, decide, evaluation_gaps, rerun_sample
from shared.errors import Misconfigured
from tests.diagnosis.jobs import job, row, scored

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def rates(n: int, right: int) -> list[float]:
    return [1.0] * right + [0.0] * (n - right)


@pytest.mark.req("D2")
def test_the_ladder_has_its_fifteen_rungs_with_every_attribute() -> None:
    rungs = ladder()
    assert [rung.rung for rung in rungs] == list(get_args(RungName))
    assert all(str(value) for rung in rungs for value in rung.model_dump().values())
    assert rungs[11].data_burden == "10^2 - 10^4 pairs"
    assert rungs[12].regression_risk == "Extremely High"


@pytest.mark.req("D2")
@pytest.mark.parametrize(("old", "new"), [("step: 2\n", "step: 3\n"), ("rung: sft", "rung: lora")])
def test_a_broken_ladder_is_refused(tmp_path: Path, old: str, new: str) -> None:
    broken = tmp_path / "ladder.yaml"
    broken.write_text(LADDER.read_text().replace(old, new))
    with pytest.raises(Misconfigured):
        ladder(broken)


@pytest.mark.req("D4")
def test_every_lighter_rung_is_run_or_named_with_a_reason() -> None:
    training = [row(f"t{n}", group=f"g{n}") for n in range(5)]
    dev = [row("d0", group="g0", tools=(TOOL,))]
    run, skipped = trials(job(), training, dev)
    assert [trial.rung for trial in run] == ["few_shot", "structured_outputs"]
    assert run[1].options.constrain_calls
    lighter = set(get_args(RungName)[:10])
    assert {t.rung for t in run} | {s.rung for s in skipped} == lighter
    assert all(s.reason for s in skipped)


@pytest.mark.req("D4")
def test_a_schema_of_the_job_is_what_answers_are_constrained_to() -> None:
    schema = {"type": "object"}
    run, _ = trials(job(behaviour__output_schema=schema), [], [row("d")])
    assert [trial.rung for trial in run] == ["structured_outputs"]
    assert run[0].options.response_schema == schema
    run, skipped = trials(job(), [], [row("d")])
    assert run == []
    assert {"few_shot", "structured_outputs"} <= {s.rung for s in skipped}


@pytest.mark.req("C6")
def test_exemplars_share_no_group_with_a_dev_item_or_each_other() -> None:
    training = [row("a", group="dev"), row("b", group="x"), row("c", group="x"), row("d"), row("e")]
    shown = exemplars(training, [row("q", group="dev")])
    assert [r.id for r in shown] == ["b", "d", "e"]
    assert exemplars(training[:3], [row("q", group="dev")]) == ()
    assert exemplars([row(i, target=None) for i in "abc"], []) == ()


@pytest.mark.req("D4")
@pytest.mark.parametrize(
    ("base", "few_shot", "structured", "decision", "rung"),
    [
        pytest.param(0, 10, 14, "train", None, id="no rung reaches the target"),
        pytest.param(0, 22, 30, "decline", "few_shot", id="the lightest that reaches it"),
        pytest.param(0, 10, 20, "decline", "structured_outputs", id="exactly the target"),
        pytest.param(25, 30, 30, "decline", "no_adaptation", id="the base itself"),
    ],
)
def test_the_lightest_way_that_reaches_the_target_wins(
    base: int, few_shot: int, structured: int, decision: str, rung: str | None
) -> None:
    measured = [
        MeasuredRung(rung="few_shot", scored=scored(rates(40, few_shot), 70, 9)),
        MeasuredRung(rung="structured_outputs", scored=scored(rates(40, structured))),
    ]
    verdict = decide(job(), scored(rates(40, base)), measured)
    assert (verdict.decision, verdict.rung) == (decision, rung)
    first = verdict.diagnosis.rungs[0]
    assert (first.added_prompt_tokens, first.latency_ms) == (60, 9)
    assert first.against_base.difference == pytest.approx((few_shot - base) / 40)
    assert first.against_base.interval.low <= first.against_base.difference
    assert first.success.interval is not None


@pytest.mark.req("D4")
def test_a_job_may_train_although_a_lighter_rung_suffices_and_the_reason_is_kept() -> None:
    measured = [MeasuredRung(rung="few_shot", scored=scored(rates(40, 30)))]
    asked = job(train_even_if_lighter_suffices="prompt tokens are too dear")
    verdict = decide(asked, scored(rates(40, 0)), measured)
    assert verdict.decision == "train"
    assert any("too dear" in note for note in verdict.diagnosis.notes)


@pytest.mark.req("D5")
def test_too_few_items_or_a_rerun_that_disagrees_is_an_evaluation_gap() -> None:
    few = evaluation_gaps(job(), dev=10, heldout=40)
    assert [p.where for p in few] == ["evaluation.dev"]
    first, stable, moved = rates(10, 5), rates(10, 5), rates(10, 8)
    same = evaluation_gaps(job(), dev=40, heldout=40, first=scored(first), again=scored(stable))
    assert same == ()
    (gap,) = evaluation_gaps(job(), dev=40, heldout=40, first=scored(first), again=scored(moved))
    assert "7 of 10" in gap.problem


@pytest.mark.parametrize(("items", "least"), [(0, 0), (3, 3), (40, 10), (1000, 250)])
def test_the_rerun_sample_is_spread_over_the_set(items: int, least: int) -> None:
    sample = rerun_sample(items)
    assert len(sample) >= least
    assert all(0 <= index < items for index in sample)


@pytest.mark.req("D6")
@pytest.mark.parametrize("name", ["auto", "sft", "distillation"])
@pytest.mark.parametrize("rows", [50, 220, 20_000])
def test_every_method_not_chosen_has_its_reason(name: str, rows: int) -> None:
    choice = choose(job(method__name=name), rows)
    assert choice.method == ("lora" if name == "auto" else name)
    assert set(choice.rejected) == set(RANGES) - {choice.method}
    assert all(choice.rejected.values())


@pytest.mark.req("D7")
def test_too_few_rows_are_refused_unless_a_reason_is_given() -> None:
    assert preflight(job(), "lora", 100) == ()
    (problem,) = preflight(job(), "lora", 99)
    assert "100 pairs; there are 99" in problem.problem
    assert preflight(job(method__data_range_override="a pilot"), "lora", 99) == ()
    assert "cannot train" in preflight(job(), "qlora", 500)[0].problem


SOURCE = {"uri": "a", "licence": "MIT", "provenance": {"source": "s"}}


@pytest.mark.req("C4")
@pytest.mark.parametrize(
    ("changed", "where"),
    [
        pytest.param(job(data=[SOURCE | {"licence": "CC-BY-NC-4.0"}]), "data[0].licence", id="nc"),
        pytest.param(
            job(data=[SOURCE | {"licence": "proprietary:acme"}]), "data[0].licence", id="p"
        ),
        pytest.param(job(evaluation__dev__licence="?"), "evaluation.dev.licence", id="dev licence"),
        pytest.param(job(data=[SOURCE, SOURCE]), "data", id="a file twice"),
        pytest.param(job(data=[SOURCE | {"uri": "c"}]), "data[0].uri", id="trains on held-out"),
        pytest.param(job(evaluation__dev__uri="c"), "evaluation", id="dev is held-out"),
        pytest.param(job(tenant="acme"), "tenant", id="another tenant"),
        pytest.param(job(rollout__deployment="taken"), "rollout.deployment", id="deployment"),
        pytest.param(job(behaviour__scorer="os:system"), "behaviour.scorer", id="scorer"),
    ],
)
def test_a_job_with_a_problem_names_it(changed: AdaptationJob, where: str) -> None:
    problems = job_problems(changed, tenant="demo", deployments={"taken": "acme"})
    assert where in [p.where for p in problems]
    assert all(p.mend for p in problems)


@pytest.mark.req("C4")
def test_a_good_job_has_no_problems_and_may_use_its_own_data() -> None:
    own = job(data=[SOURCE | {"licence": "proprietary:demo"}])
    assert job_problems(own, tenant="demo", deployments={"d": "demo"}) == ()
