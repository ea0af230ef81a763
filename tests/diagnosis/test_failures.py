"""Failure logs: causes measured on a labelled set, clusters, and consent before training."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import get_args

import pytest

from contracts.failures import CauseName, Trace
from services.diagnosis.causes import failure_log_problems
from services.diagnosis.checks import job_problems
from shared.artifacts import ArtifactStore, Pinned, pin
from shared.errors import ArtifactMissing, InvalidInput
from shared.failures import analyse, diagnose, may_train_on, read_traces
from shared.failures.diagnosis import causes
from tests.diagnosis.failures.accuracy import LABELLED, Labelled, judged, labelled
from tests.diagnosis.jobs import job

pytestmark = pytest.mark.req("D3")
BY_CAUSE = {cause: [] for cause in get_args(CauseName)}
for _case in labelled("tune"):
    BY_CAUSE[_case.cause].append(_case.trace)


def log_of(folder: Path, *counts: tuple[str, int]) -> Path:
    path = folder / "failures.jsonl"
    traces = [trace for cause, n in counts for trace in BY_CAUSE[cause][:n]]
    path.write_text("".join(trace.model_dump_json() + "\n" for trace in traces))
    return path


def test_the_nine_causes_each_have_intervention_guardrail_and_signals() -> None:
    assert [cause.name for cause in causes()] == list(get_args(CauseName))
    assert all(c.intervention and c.guardrail and len(c.signals) >= 3 for c in causes())


def test_the_labelled_set_has_ten_reported_traces_of_every_cause_apart_from_the_tuned() -> None:
    reported = Counter(case.cause for case in labelled("report"))
    assert set(reported) == set(get_args(CauseName))
    assert min(reported.values()) >= 10
    total = sum(1 for line in LABELLED.read_text().splitlines() if line)
    assert total >= 180
    requests = [{case.trace.request for case in labelled(s)} for s in ("tune", "report", "unseen")]
    assert not requests[0] & requests[1]
    assert not requests[2] & (requests[0] | requests[1])


@pytest.mark.parametrize(("split", "floor"), [("report", 0.9), ("unseen", 0.35)])
def test_causes_are_found_at_least_as_often_as_the_documentation_says(
    split: str, floor: float
) -> None:
    cases = labelled(split)
    assert judged(cases).right / len(cases) >= floor


def test_wording_that_no_rule_knows_stays_undetermined_rather_than_adaptation() -> None:
    wrong = [
        found
        for case in labelled("unseen")
        if (found := diagnose(case.trace)).cause == "adaptation" != case.cause
    ]
    assert len(wrong) <= 2
    bare = Trace(id="t", request="Do it", answer="Done.")
    assert diagnose(bare).cause is None
    assert may_train_on(analyse([bare]))


def test_the_report_ranks_causes_with_share_interval_evidence_and_mend() -> None:
    traces = [*BY_CAUSE["schema"][:6], *BY_CAUSE["tool"][:2]]
    report = analyse(traces)
    first = report.findings[0]
    assert first.cause == "schema"
    assert (first.share.value, first.share.n) == (0.75, 8)
    assert first.share.interval is not None
    assert first.share.interval.low < 0.75 < first.share.interval.high
    assert sorted(t for c in first.clusters for t in c.traces) == sorted(t.id for t in traces[:6])
    assert first.signals
    assert "structured output" in first.intervention
    assert report == analyse(traces)


def test_failures_that_read_alike_form_one_cluster() -> None:
    def trace(name: str, request: str) -> Trace:
        error = "Expecting value: line 1 column 1"
        return Trace(id=name, request=request, answer="{", error=error)

    report = analyse(
        [
            trace("a", "Return the order of Ms. Berg as JSON"),
            trace("b", "Translate the weather report into Norwegian, as a table with wind and sun"),
            trace("c", "Return the order of Mr. Lund as JSON"),
        ]
    )
    assert [cluster.traces for cluster in report.findings[0].clusters] == [("a", "c"), ("b",)]


def test_a_malformed_log_names_its_lines() -> None:
    with pytest.raises(InvalidInput) as refusal:
        read_traces(b'{"id": "a", "request": "r", "answer": "x"}\n{"id": "b"}\nno', "log.jsonl")
    assert {p.where for p in refusal.value.problems} == {"log.jsonl:2", "log.jsonl:3"}


@pytest.mark.req("H7")
def test_a_log_may_be_trained_on_only_where_adaptation_leads(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path / "store"))

    def problems(*counts: tuple[str, int]) -> list[str]:
        path = log_of(tmp_path, *counts)
        source = {"uri": "a", "licence": "MIT", "failures": str(pin(store, path.as_uri()))}
        submitted = job(data=[source | {"provenance": {"source": "s", "failure_log": True}}])
        assert not job_problems(submitted, tenant="demo")
        found = failure_log_problems(submitted, lambda uri: store.get(Pinned.parse(uri).digest))
        return [f"{p.where}: {p.problem} {p.mend}" for p in found]

    assert problems(("adaptation", 6), ("retrieval", 3)) == []
    (refused,) = problems(("adaptation", 3), ("retrieval", 6))
    assert refused.startswith("data[0].failures: the failure log's leading cause is the Retrieval")
    assert BY_CAUSE["retrieval"][0].id in refused
    assert "index" in refused
    assert problems(("adaptation", 4), ("tool", 4)), "a tie is no evidence for training"


@pytest.mark.req("H7")
def test_rows_made_from_failures_must_name_their_log() -> None:
    source = {"uri": "a", "licence": "MIT"}
    unnamed = job(data=[source | {"provenance": {"source": "s", "failure_log": True}}])
    assert [p.where for p in job_problems(unnamed, tenant="demo")] == ["data[0].failures"]


@pytest.mark.req("H7")
@pytest.mark.parametrize("error", [FileNotFoundError("f"), ValueError("f"), ArtifactMissing("f")])
def test_an_unreadable_log_is_a_problem_of_its_field(error: Exception) -> None:
    source = {"uri": "a", "licence": "MIT", "failures": "gone", "provenance": {"source": "s"}}

    def gone(uri: str) -> bytes:
        raise error

    (problem,) = failure_log_problems(job(data=[source]), gone)
    assert problem.where == "data[0].failures"


def test_every_label_is_a_cause() -> None:
    for line in LABELLED.read_text().splitlines():
        assert Labelled.model_validate(json.loads(line)).cause in get_args(CauseName)
