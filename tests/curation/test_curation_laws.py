import json
import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.data import Row
from services.curation.census import Census, group_key
from services.curation.contamination import contamination_sweep
from services.curation.duplicates import exact_duplicates, near_duplicates
from services.curation.proposals import Proposals
from services.curation.rows import Tally, TracedRow, through
from services.curation.snapshot import row_bytes
from shared.similarity.minhash import NearDuplicates
from shared.similarity.text import shingles

WORDS = ("book", "find", "5", "7", "the", "a", "Oslo", "flight", "triangle", "area")
requests = st.lists(
    st.lists(st.sampled_from(WORDS), min_size=1,
             max_size=16).map(" ".join),
    max_size=25,
)  # fmt: skip


def traced(texts, groups=3):
    return [
        TracedRow(
            Row(id=f"r{i}", messages=({"role": "user", "content": t},), target="ok",
                group=f"g{hash(t) % groups}" if i % 2 else None),
            "f", i + 1, "sha256:" + "0" * 64, "positive",
        )
        for i, t in enumerate(texts)
    ]  # fmt: skip


def divided(rows, share):
    census = Census(sqlite3.connect(":memory:"))
    for t in rows:
        census.note([t.numbered(t.line)])
    held = census.held(share, None)
    train = [t for t in rows if group_key(t) not in held]
    return train, [t for t in rows if group_key(t) in held]


@settings(deadline=None)
@given(texts=requests, held=requests)
def test_stages_add_no_rows_keep_order_and_account_for_each(texts, held):
    evaluation = {"heldout": [t.row.model_copy(update={"group": None}) for t in traced(held)]}
    stages = [contamination_sweep(evaluation, 0.9), exact_duplicates(), near_duplicates(0.8)]
    rows = traced(texts)
    stream, tallies = through(stages, rows)
    kept = list(stream)
    assert [t.line for t in kept] == sorted(t.line for t in kept)
    for tally in tallies:
        assert tally.rows_in == tally.rows_out + sum(tally.dropped.values())
    assert len(rows) == len(kept) + sum(len(t.fates) for t in tallies)
    again, _ = through([exact_duplicates(), near_duplicates(0.8)], kept)
    assert list(again) == kept


@pytest.mark.req("C8")
@given(texts=requests, share=st.floats(0, 0.9))
def test_splits_are_disjoint_by_group_complete_and_independent_of_order(texts, share):
    rows = traced(texts)
    train, validation = divided(rows, share)
    assert not {t.row.cluster for t in train} & {t.row.cluster for t in validation}
    assert sorted(t.line for t in train + validation) == [t.line for t in rows]
    backwards = divided(list(reversed(rows)), share)
    assert {t.row.id for t in backwards[1]} == {t.row.id for t in validation}
    assert not rows or train


@pytest.mark.req("C5")
@settings(deadline=None)
@given(texts=requests.filter(lambda t: len(t) > 1), threshold=st.sampled_from([0.5, 0.7, 0.9]))
def test_near_duplicates_never_claims_more_than_exact_jaccard_says(texts, threshold):
    index = NearDuplicates(threshold)
    index.add(texts[0], texts[0])
    for text in texts[1:]:
        one, two = set(shingles(texts[0])), set(shingles(text))
        true = len(one & two) / len(one | two)
        found = index.find(text)
        assert (found is not None) <= (true >= threshold)
        if found:
            assert found[1] == pytest.approx(true)


@given(texts=requests)
def test_canonical_bytes_read_back_as_the_same_row(texts):
    for t in traced(texts):
        assert Row.model_validate_json(row_bytes(t.row)) == t.row
        assert json.loads(row_bytes(t.row))["id"] == t.row.id


@pytest.mark.req("C5")
@settings(deadline=None, max_examples=30)
@given(texts=requests, cells=st.integers(1, 400))
def test_rows_that_share_no_band_are_skipped_without_changing_who_is_a_duplicate(texts, cells):
    rows = [t.numbered(t.line) for t in traced([*texts, *(f"{text} again" for text in texts)])]
    db = sqlite3.connect(":memory:", isolation_level=None)
    near = NearDuplicates(0.7, db)
    proposals = Proposals(near, db, cells)
    for start in range(0, len(rows), 3):
        proposals.note(rows[start : start + 3])
    proposals.settle()
    asked, plain = Tally("near"), Tally("near")
    kept = near_duplicates(0.7, near, proposals.keys).apply(rows, asked)
    assert list(kept) == list(near_duplicates(0.7).apply(rows, plain))
    assert asked.fates == plain.fates
