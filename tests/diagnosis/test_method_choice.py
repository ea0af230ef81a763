from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from contracts.data import Row
from contracts.job import AdaptationJob, MethodName
from services.diagnosis.checks import job_problems
from services.diagnosis.clinic import Clinic
from services.diagnosis.matrix import METHODS, MethodRow, matrix
from services.diagnosis.method import choose, preflight, text_tokens
from shared.artifacts import ArtifactStore
from shared.errors import Misconfigured
from shared.settings import Settings
from tests.diagnosis.jobs import job, row


@pytest.mark.req("D6")
@pytest.mark.parametrize("name", ["auto", "sft", "distillation"])
@pytest.mark.parametrize("rows", [50, 220, 20_000])
def test_every_method_not_chosen_has_its_reason(name: str, rows: int) -> None:
    choice = choose(job(method__name=name), rows)
    automatic = "sft" if rows == 20_000 else "lora"
    assert choice.method == (automatic if name == "auto" else name)
    assert len(choice.rejected) == 7
    assert set(choice.rejected) == set(matrix()) - {choice.method}
    assert all(choice.rejected.values())


@pytest.mark.req("D6")
def test_the_matrix_has_eight_methods_with_seven_attributes() -> None:
    attributes = tuple(MethodRow.model_fields)[2:9]
    assert (attributes[0], attributes[-1]) == ("ideal_use_case", "evaluation_requirements")
    assert len(matrix()) == 8
    assert all(getattr(row, name) for row in matrix().values() for name in attributes)
    named = set(get_args(MethodName)) - {"auto"}
    assert set(matrix()) == named | {"synthetic_generation"}


@pytest.mark.req("D6")
@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("rank: 3", "rank: 1", id="two of one rank"),
        pytest.param("method: sft", "method: lora", id="a method twice"),
        pytest.param("many_tasks:", "many_tusks:", id="a fact that nothing states"),
        pytest.param("low: 100,", "low: none,", id="no number"),
    ],
)
def test_a_broken_matrix_is_refused(tmp_path: Path, old: str, new: str) -> None:
    broken = tmp_path / "methods.yaml"
    assert old in METHODS.read_text()
    broken.write_text(METHODS.read_text().replace(old, new, 1))
    with pytest.raises(Misconfigured):
        matrix(broken)


@pytest.mark.req("D6")
def test_an_edited_matrix_changes_the_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edited = tmp_path / "methods.yaml"
    text = METHODS.read_text().replace("rank: 1\n  available: true", "rank: 9\n  available: true")
    edited.write_text(text)
    rows = matrix(edited)
    monkeypatch.setattr("services.diagnosis.method.matrix", lambda: rows)
    assert choose(job(), 5_000).method == "sft"
    assert choose(job(), 500).method == "lora"


@pytest.mark.req("D6")
@pytest.mark.parametrize(
    ("changes", "rows", "method", "reason"),
    [
        ({}, 500, "sft", "at least 1,000 pairs; there are 500"),
        ({}, 5_000, "sft", "moves every weight"),
        ({"method__name": "lora"}, 5_000, "sft", "the job names lora"),
        ({}, 5_000, "qlora", "memory that this base does not need"),
        ({}, 5_000, "preference", "a better and a worse answer"),
        ({}, 5_000, "distillation", "no teacher whose price"),
        ({"economics__teacher_price_per_mtok": 5}, 5_000, "distillation", "names no teacher"),
        ({}, 5_000, "synthetic_generation", "the job asks for none"),
        ({"synthesis": {"rows": 9}}, 5_000, "synthetic_generation", "ahead of the method"),
        ({"method__name": "sft"}, 20_000, "lora", "at most 10,000 pairs; there are 20,000"),
    ],
)
def test_a_method_is_rejected_for_the_reason_that_holds(
    changes: dict[str, object], rows: int, method: str, reason: str
) -> None:
    assert reason in choose(job(**changes), rows).rejected[method]


@pytest.mark.req("D7")
def test_too_few_rows_are_refused_unless_a_reason_is_given() -> None:
    assert preflight(job(), "lora", 100) == ()
    (problem,) = preflight(job(), "lora", 99)
    assert "100 pairs; there are 99" in problem.problem
    assert preflight(job(method__data_range_override="a pilot"), "lora", 99) == ()


@pytest.mark.req("D6", "D7")
def test_raw_text_is_counted_in_tokens_and_is_no_demonstration() -> None:
    rows = [
        Row.model_validate(
            {
                "id": f"d{i}",
                "messages": [{"role": "user", "content": f"page {i}"}],
                "target": "word " * 800,
                "document": "domain",
            }
        )
        for i in range(3)
    ]
    tokens = text_tokens(rows)
    assert tokens == 3_000
    named = job(method__name="domain_adaptation")
    assert preflight(named, "domain_adaptation", 3, 200_000_000) == ()
    (problem,) = preflight(named, "domain_adaptation", 3, tokens)
    assert "100,000,000 tokens; there are 3,000" in problem.problem
    assert choose(job(), 3, 200_000_000).method == "domain_adaptation"
    assert "no answered rows" in choose(job(), 3, 200_000_000).rejected["lora"]


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


@pytest.mark.req("D6", "D7")
def test_preference_tuning_is_available_and_wants_a_thousand_judged_answers():
    tuned = job(method__name="preference")
    assert choose(tuned, 1000).method == "preference"
    assert preflight(tuned, "preference", 1000) == ()
    (problem,) = preflight(tuned, "preference", 999)
    assert "1,000 preference records" in problem.problem
    synthetic = job(method__name="preference", synthesis={"rows": 10})
    (problem,) = preflight(synthetic, "preference", 1000)
    assert problem.where == "synthesis"


@pytest.mark.req("D7")
def test_rows_that_do_not_fit_the_method_are_refused_before_anything_is_asked(tmp_path):
    clinic = Clinic(Settings(home=tmp_path), ArtifactStore(f"file://{tmp_path}"), None)
    pairs = [row(f"p{n}", rejected="b") for n in range(25)]
    tuned = job(method__name="preference")
    assert clinic._before_measuring(tuned, pairs, 30, 30) is None
    halted = clinic._before_measuring(tuned, [*pairs, row("alone")], 30, 30)
    assert halted.reason == "data_preflight"
    assert [p.where for p in halted.problems] == ["row 'alone'"]
