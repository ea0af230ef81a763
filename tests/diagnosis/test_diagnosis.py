from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.data import Message
from contracts.diagnosis import RungName
from services.diagnosis.crossfit import cross_fitted
from services.diagnosis.ladder import LADDER, ladder
from services.diagnosis.revisions import Revision, revised, revisions
from services.diagnosis.rungs import exemplars, trials
from services.diagnosis.verdict import (
    MeasuredRung,
    decide,
    evaluation_gaps,
    measured_rung,
    rerun_sample,
)
from shared.asking import chat_messages
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
    assert [trial.rung for trial in run] == [
        "prompt_revision",
        "few_shot",
        "structured_outputs",
        "validators",
    ]
    assert run[2].ways[0].options.constrain_calls
    lighter = set(get_args(RungName)[:10]) - {"routing"}  # read off afterwards
    assert {t.rung for t in run} | {s.rung for s in skipped} == lighter
    assert all(s.reason for s in skipped)


@pytest.mark.req("D4")
def test_a_schema_of_the_job_is_what_answers_are_constrained_to() -> None:
    schema = {"type": "object"}
    run, _ = trials(job(behaviour__output_schema=schema), [], [row("d")])
    assert [trial.rung for trial in run] == ["prompt_revision", "structured_outputs", "validators"]
    assert run[1].ways[0].options.response_schema == schema
    run, skipped = trials(job(), [], [row("d")])
    assert [trial.rung for trial in run] == ["prompt_revision"]
    assert {"few_shot", "structured_outputs", "validators"} <= {s.rung for s in skipped}


@pytest.mark.req("D4")
def test_the_jobs_own_prompts_take_the_place_of_the_systematic_revisions() -> None:
    (first, *_), _ = trials(job(ladder__prompts=["Be brief.", "Be exact."]), [], [row("d")])
    assert [way.options.system_prompt for way in first.ways] == ["Be brief.", "Be exact."]
    (systematic, *_), _ = trials(job(behaviour__system_prompt="Be kind."), [], [row("d")])
    assert [way.name for way in systematic.ways] == [revision.name for revision in revisions()]
    for way in systematic.ways:
        assert way.rewrite is not None
        asked = chat_messages(way.rewrite(row("d")), way.options)
        assert asked[0]["role"] == "system"
        assert asked[0]["content"].startswith("Be kind.\n")
        assert asked[1:] == [{"role": "user", "content": "question d"}]


@pytest.mark.req("D4")
def test_a_revision_builds_on_the_rows_own_system_message_where_the_job_has_none() -> None:
    spoken = row("d").model_copy(
        update={
            "messages": (
                Message(role="system", content="You are {behaviour}."),
                Message(role="user", content="hello"),
            )
        }
    )
    asked = revised(spoken, Revision(name="r", text="{prompt} {behaviour}"), job().behaviour)
    assert [m.content for m in asked.messages] == ["You are {behaviour}. d", "hello"]


@pytest.mark.req("D4")
def test_no_retry_allowed_leaves_the_validators_out_with_the_reason() -> None:
    dev = [row("d", tools=(TOOL,))]
    run, skipped = trials(job(ladder__validator_retries=0), [], dev)
    assert "validators" not in [trial.rung for trial in run]
    assert "validator_retries is 0" in {s.rung: s.reason for s in skipped}["validators"]


def test_a_way_is_chosen_for_an_item_without_looking_at_its_fold() -> None:
    """Each way is right on one half only, so a choice that saw its item would always be right."""
    left, right = scored([1.0, 0.0] * 10), scored([0.0, 1.0] * 10)
    picked = cross_fitted([left, right])
    best_of_all = [max(a.value, b.value) for a, b in zip(left, right, strict=True)]
    chosen = [(left, right)[way][item].value for item, way in enumerate(picked)]
    assert sum(best_of_all) == 20
    assert sum(chosen) <= 10
    assert cross_fitted([left]) == (0,) * 20


def test_the_way_that_is_better_everywhere_is_chosen_everywhere() -> None:
    ways = [scored([0.0] * 12), scored([1.0] * 12)]
    assert cross_fitted(ways) == (1,) * 12
    found = measured_rung("prompt_revision", ["a", "b"], ways)
    assert (found.variant, found.variants) == ("b", 2)
    assert [s.value for s in found.scored] == [1.0] * 12


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.booleans()), min_size=1))
def test_items_of_one_cluster_are_answered_by_one_way(items: list[tuple[int, bool, bool]]) -> None:
    ways = [
        [
            replace(s, cluster=f"c{items[n][0]}")
            for n, s in enumerate(scored([float(v) for v in v_]))
        ]
        for v_ in ([a for _, a, _ in items], [b for _, _, b in items])
    ]
    picked = cross_fitted(ways)
    for cluster in {c for c, _, _ in items}:
        assert len({picked[n] for n, (c, _, _) in enumerate(items) if c == cluster}) == 1


@pytest.mark.req("C6")
def test_exemplars_share_no_group_with_a_dev_item_or_each_other() -> None:
    training = [row("a", group="dev"), row("b", group="x"), row("c", group="x"), row("d"), row("e")]
    shown = exemplars(training, [row("q", group="dev")])
    assert [r.id for r in shown] == ["b", "d", "e"]
    assert exemplars(training[:3], [row("q", group="dev")]) == ()
    assert exemplars([row(i, target=None) for i in "abc"], []) == ()
    assert exemplars([row(i, desirable=False) for i in "abc"], []) == ()


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
def test_a_rung_gives_what_it_adds_and_the_cost_of_each_success() -> None:
    """40 items of 11 tokens at 2 per million: ten successes cost 44 tokens each."""
    asked = job(economics__price_per_mtok=2.0)
    retried = [
        replace(s, answer=replace(s.answer, requests=2, completion_tokens=3))
        for s in scored(rates(40, 20), 30, 9)
    ]
    measured = [measured_rung("validators", [""], [retried], 2.0)]
    found = decide(asked, scored(rates(40, 10)), measured).diagnosis
    assert found.base_usage is not None
    assert found.base_usage.tokens_per_success == pytest.approx(44)
    assert found.base_usage.cost_per_success == pytest.approx(88e-6)
    (rung,) = found.rungs
    assert (rung.added_prompt_tokens, rung.added_completion_tokens) == (20, 2)
    assert (rung.latency_ms, rung.added_latency_ms) == (9, 4)
    assert rung.usage is not None
    assert rung.usage.requests == 2
    assert rung.usage.cost_per_success == pytest.approx(2e-6 * 33 * 40 / 20)


@pytest.mark.req("D4")
def test_without_a_price_or_a_success_no_cost_per_success_is_made_up() -> None:
    measured = [measured_rung("few_shot", [""], [scored(rates(40, 0))], 2.0)]
    found = decide(job(economics__price_per_mtok=2.0), scored(rates(40, 10)), measured).diagnosis
    assert found.rungs[0].usage is not None
    assert found.rungs[0].usage.cost_per_success is None
    assert found.rungs[0].usage.tokens_per_success is None
    free = decide(job(), scored(rates(40, 10)), []).diagnosis
    assert free.base_usage is not None
    assert free.base_usage.cost_per_success is None


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
