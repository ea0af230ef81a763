"""Kappa against statsmodels and published tables."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.inter_rater import cohens_kappa
from statsmodels.stats.inter_rater import fleiss_kappa as reference_fleiss

from shared.statistics.agreement import agreement, cohen_kappa, disputes, fleiss_kappa

pytestmark = pytest.mark.req("C2")

FLEISS_1981 = [[75, 1, 4], [5, 4, 1], [0, 0, 10]]
"""100 diagnoses by two raters (Fleiss, Statistical Methods for Rates and Proportions, 1981)."""
FOURTEEN_RATERS = [
    [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
]  # fmt: skip
"""The worked example of Fleiss' kappa that textbooks reprint: 10 subjects, 14 raters, 0.210."""


def pairs_of(table: list[list[int]]) -> list[tuple[str, str]]:
    return [
        (str(i), str(j)) for i, row in enumerate(table) for j, n in enumerate(row) for _ in range(n)
    ]


def labels_of(table: list[list[int]]) -> list[list[str]]:
    return [[str(j) for j, n in enumerate(row) for _ in range(n)] for row in table]


def test_cohen_gives_the_published_value_and_the_interval_of_statsmodels() -> None:
    found, reference = cohen_kappa(pairs_of(FLEISS_1981)), cohens_kappa(FLEISS_1981)
    assert found.kappa == pytest.approx(0.676, abs=5e-4)
    assert found.interval.low == pytest.approx(reference.kappa_low)
    assert found.interval.high == pytest.approx(reference.kappa_upp)


def test_fleiss_gives_the_published_value() -> None:
    found = fleiss_kappa(labels_of(FOURTEEN_RATERS), 14)
    assert found.kappa == pytest.approx(0.210, abs=5e-4)
    assert found.interval.low < found.kappa < found.interval.high


@given(st.lists(st.lists(st.integers(0, 12), min_size=3, max_size=3), min_size=3, max_size=3))
def test_cohen_is_statsmodels_on_any_table(table: list[list[int]]) -> None:
    found = cohen_kappa(pairs_of(table))
    if found.kappa is None:
        margins = np.array(table).sum(axis=0), np.array(table).sum(axis=1)
        assert max(int(m.max()) for m in margins) in (0, np.array(table).sum())
        return
    with np.errstate(divide="ignore", invalid="ignore"):  # its z of a table without variance
        reference = cohens_kappa(np.array(table))
    assert found.kappa == pytest.approx(reference.kappa)
    low = reference.kappa_low  # not a number where rounding leaves a variance below zero
    low = reference.kappa if np.isnan(low) else max(-1, low)
    assert found.interval.low == pytest.approx(low, abs=1e-6)


@given(st.lists(st.lists(st.sampled_from("abc"), min_size=4, max_size=4), min_size=2, max_size=9))
def test_fleiss_is_statsmodels_on_any_labels(labels: list[list[str]]) -> None:
    found = fleiss_kappa(labels, 4)
    table = np.array([[item.count(c) for c in "abc"] for item in labels])
    if (table.sum(axis=0) > 0).sum() == 1:
        assert found.kappa is None
        assert found.observed == 1
    else:
        assert found.kappa == pytest.approx(reference_fleiss(table))


def test_the_bootstrap_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    """Three raters who are right with 0.9 of two balanced labels: kappa is 0.64 by arithmetic."""
    rng = random.Random(1)
    held = 0
    for _ in range(60):
        items = []
        for _ in range(80):
            truth = rng.random() < 0.5
            items.append([str(truth if rng.random() < 0.9 else not truth) for _ in range(3)])
        found = fleiss_kappa(items, 3)
        held += found.interval.low <= 0.64 <= found.interval.high
    assert held >= 52


def test_one_label_only_is_no_evidence() -> None:
    assert cohen_kappa([("a", "a")] * 9).kappa is None
    assert fleiss_kappa([["a", "a", "a"]] * 9, 3).kappa is None
    assert agreement({}).kappa is None


def test_two_raters_are_cohens_and_a_lone_label_says_nothing() -> None:
    votes = {"1": {"a": "x", "b": "x"}, "2": {"a": "y", "b": "x"}, "3": {"a": "x"}}
    found = agreement(votes)
    assert (found.kind, found.items, found.observed) == ("cohen", 2, 0.5)
    assert disputes(votes) == [("2", 1.0)]
    assert agreement({**votes, "4": {"a": "x", "c": "x"}}).kind == "fleiss"
