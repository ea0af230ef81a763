"""Raters who disagree halt the run; who agree decide which rows may teach."""

import json

import pytest

from contracts.curation import RecalibrationRequired
from services.curation.pipeline import Curated, Halted
from services.curation.reading import SourceFile
from tests.curation.samples import clean_rows, content, curate, jsonl, training

pytestmark = pytest.mark.req("C2")


def annotations(*votes: tuple[str, str, str], line: str = "label", expert: bool = False):
    return [
        {"item": item, "rater": rater, "label": label, "line": line}
        | ({"adjudication": True} if expert else {})
        for item, rater, label in votes
    ]


def filed(rows) -> SourceFile:
    return SourceFile(file="labels.jsonl", content=jsonl(rows))


def votes(count: int, differ: int, line: str = "label", raters=("ana", "ben")):
    """Half keep, half reject; the last rater differs on the first `differ` rows."""
    found = []
    for i in range(1, count + 1):
        label = "keep" if i % 2 else "reject"
        other = {"keep": "reject", "reject": "keep"}[label] if i <= differ else label
        given = [label] * (len(raters) - 1) + [other]
        found += [(f"r{i}", rater, said) for rater, said in zip(raters, given, strict=True)]
    return annotations(*found, line=line)


def test_too_little_agreement_halts_with_the_rows_and_the_line_that_divide(job, detector):
    labels = votes(40, 1, "correct") + votes(40, 12, "tone")
    done = curate(job(), [training(clean_rows(40))], {}, detector, annotations=filed(labels))
    assert isinstance(done, RecalibrationRequired)
    assert [line.line for line in done.lines] == ["tone", "correct"]
    assert done.lines[0].kappa == pytest.approx(0.4, abs=0.01)
    assert {d.line for d in done.disputes} == {"tone"}
    assert {d.item for d in done.disputes} == {f"r{i}" for i in range(1, 13)}
    assert done.disputes[0].labels.keys() == {"ana", "ben"}
    [problem] = done.problems
    assert "kappa is 0.40" in problem.problem
    assert "below 0.70" in problem.problem


def test_many_raters_are_measured_by_fleiss(job, detector):
    labels = votes(40, 20, raters=("ana", "ben", "cat"))
    done = curate(job(), [training(clean_rows(40))], {}, detector, annotations=filed(labels))
    assert isinstance(done, RecalibrationRequired)
    assert (done.lines[0].kind, done.lines[0].raters) == ("fleiss", 3)


def test_an_interval_that_reaches_below_the_minimum_is_a_warning_and_no_halt(job, detector):
    labels = votes(40, 4) + annotations(*((f"r{i}", "eve", "keep") for i in range(1, 5)),
                                        expert=True)  # fmt: skip
    done = curate(job(), [training(clean_rows(40))], {}, detector, annotations=filed(labels))
    assert isinstance(done, Curated)
    card = done.snapshot.card
    assert card.agreement[0].kappa == pytest.approx(0.8, abs=0.01)
    assert any("reaches below 0.70" in warning for warning in card.warnings)
    assert "| label | 0.80 (cohen) |" in done.card_markdown


def test_settled_rows_stay_or_go_and_an_expert_decides_disputes(job, detector):
    labels = votes(40, 4) + annotations(("r1", "eve", "keep"), ("r2", "eve", "reject"),
                                        expert=True)  # fmt: skip
    done = curate(job(), [training(clean_rows(40))], {}, detector, annotations=filed(labels))
    stage = done.snapshot.card.stages[0]
    assert stage.stage == "annotations"
    assert stage.dropped == {"refused_label": 19, "unsettled": 2}
    lineage = {e["row"]: e for e in map(json.loads, content(done, "lineage.jsonl").splitlines())}
    assert "an expert settled on reject" in lineage["r2"]["detail"]
    assert "raters tie" in lineage["r3"]["detail"]
    assert lineage["r1"].get("split") in {"train", "validation"}


def test_rows_may_carry_their_labels(job, detector):
    rows = [
        {**r, "meta": {"annotations": {"ana": "keep", "ben": "keep" if i % 2 else "reject"}}}
        for i, r in enumerate(clean_rows(10))
    ]
    assert isinstance(curate(job(), [training(rows)], {}, detector), RecalibrationRequired)
    lax = job(curation={"minimum_kappa": 0.0})
    assert isinstance(curate(lax, [training(rows)], {}, detector), Curated)


def test_a_malformed_annotation_is_named(job, detector):
    done = curate(job(), [training(clean_rows(3))], {}, detector,
                  annotations=SourceFile(file="l.jsonl", content=b'{"item": "r1"}\n'))  # fmt: skip
    assert isinstance(done, Halted)
    assert done.problems[0].where == "l.jsonl:1"
