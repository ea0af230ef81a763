"""The desk: pinned sources in, a fact out, and nothing left in the work folder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from contracts.curation import DatasetCurated, SynthesisRequested
from contracts.data import DatasetCard
from contracts.run import Run
from contracts.subjects import RunRef
from contracts.synthesis import RowsSynthesized
from services.curation.desk import Desk
from services.curation.pipeline import Advance
from shared.artifacts import ArtifactStore, Pinned
from tests.curation.samples import clean_rows, held_out, jsonl, row


@pytest.mark.req("C4", "C8")
def test_seeds_are_asked_for_first_and_synthetic_rows_join_them(job, detector, tmp_path: Path):
    store = ArtifactStore((tmp_path / "store").as_uri())

    def pinned(content: bytes, name: str) -> str:
        return str(Pinned(store.put(content), name))

    held = held_out([row("h", "Find the leaked item of the set")]).content
    source = {"uri": pinned(jsonl(clean_rows(30)), "train.jsonl"), "licence": "MIT",
              "provenance": {"source": "t"}}  # fmt: skip
    sets = {name: {"uri": pinned(held, f"{name}.jsonl"), "licence": "MIT"}
            for name in ("dev", "heldout")}  # fmt: skip
    wish = job(data=[source], evaluation=sets, synthesis={"rows": 3})
    desk = Desk(store, detector, tmp_path / "work")
    run = Run(ref=RunRef("acme", "j"), job=wish)
    advances: list[Advance] = []
    asked = desk.curate(run, advances.append)
    assert isinstance(asked, SynthesisRequested)
    assert [(a.leg, a.done, a.shards) for a in advances] == [("sift", 1, 1), ("unlike", 1, 1)]
    seeds = [json.loads(line) for line in store.get(asked.seeds).splitlines()]
    assert 0 < len(seeds) < 30
    made = jsonl([row("syn", "Kindly show the tides of Bergen", "none")])
    told = RowsSynthesized(rows=store.put(made), requested=3, accepted=1, distinct_2=1.0,
                           alarms=("monoculture",))  # fmt: skip
    done = desk.curate(replace(run, synthesized=told))
    assert isinstance(done, DatasetCurated)
    card = DatasetCard.model_validate_json(store.get(done.card))
    assert [s.rows for s in card.sources] == [30, 1]
    assert "synthesis: monoculture" in card.warnings
    assert store.has(done.train)
    assert list((tmp_path / "work").iterdir()) == []
    assert desk.curate(replace(run, synthesized=told)) == done
