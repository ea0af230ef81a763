"""Contrast pairs: what they are, that they are nobody's test, and how they enter a dataset."""

from __future__ import annotations

import pytest

from contracts.governance import MOST_CONTRAST_PAIRS
from services.curation.contamination import contamination_sweep
from services.curation.contrast import contrast_sources, pairs
from services.curation.reading import read_rows
from services.curation.refusals import is_refusal
from services.curation.rows import Tally, TracedRow
from services.curation.withholding import withheld
from services.evaluation.suites import safety
from shared.scoring.refusal import refuses


def traced(count: int) -> list[TracedRow]:
    return [t for source in contrast_sources(count) for t in read_rows(source, "target", [])]


def test_every_pair_is_a_refusal_and_an_answer_that_share_words() -> None:
    assert len(pairs()) == MOST_CONTRAST_PAIRS
    for pair in pairs():
        shared = set(pair.unsafe.casefold().split()) & set(pair.safe.casefold().split())
        assert len(shared) >= 2, pair
        assert not refuses(pair.answer), pair
    rows = traced(MOST_CONTRAST_PAIRS)
    assert len(rows) == 2 * len(pairs())
    assert [is_refusal(t.row) for t in rows] == [t.role == "boundary" for t in rows]
    assert all(refuses(t.row.target or "") for t in rows if t.role == "boundary")


@pytest.mark.req("G6", "C6")
def test_no_pair_is_an_item_of_the_safety_gate() -> None:
    tally = Tally("contamination")
    suite = [item.row for item in safety.items()]
    rows = traced(MOST_CONTRAST_PAIRS)
    kept = list(contamination_sweep({"safety": suite}, 0.6).apply(rows, tally))
    assert kept == rows
    own = [TracedRow(row, "x", n, rows[0].source, "boundary") for n, row in enumerate(suite)]
    assert not list(contamination_sweep({"safety": suite}).apply(own, tally))


def test_none_are_mixed_in_unasked() -> None:
    assert contrast_sources(0) == ()
    assert [t.row.id for t in traced(1)] == ["contrast-refused-00", "contrast-answered-00"]


@pytest.mark.req("G7")
def test_withheld_rows_are_dropped_and_a_missing_one_is_told() -> None:
    tally = Tally("withholding")
    rows = traced(2)
    stage = withheld(["contrast-refused-01", "nobody"])
    kept = list(stage.apply(rows, tally))
    assert [t.row.id for t in kept] == [r.row.id for r in rows if r.row.id != "contrast-refused-01"]
    assert tally.dropped == {"withheld": 1}
    assert stage.warn(tally) == ["withheld rows that are not in the data: nobody"]
