"""The training path asks the store for an evaluation set, in earnest, and does not get it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from contracts.base import Event
from contracts.curation import DatasetCurated
from contracts.diagnosis import RunAccepted
from contracts.run import Run, fold
from contracts.subjects import RunRef
from services.curation.desk import Desk
from services.curation.redaction import Span
from services.diagnosis.intake import Intake
from services.training.settings import TrainingSettings
from services.training.workshop import Order, Workshop
from shared.artifacts import ArtifactStore, Pinned
from shared.errors import EvaluationWithheld
from shared.testing.runs import advised, recorded_log
from shared.testing.tiny_model import build_tiny_llama
from tests.curation.samples import clean_rows, held_out, jsonl, row
from tests.diagnosis.jobs import job

REF = RunRef("demo", "r1")


class NothingPrivate:
    def detect(self, texts: Any) -> list[list[Span]]:
        return [[] for _ in texts]


def accepted(tmp_path: Path, store: ArtifactStore, **changes: Any) -> RunAccepted:
    """A job that intake has taken in, with real files and a real model folder."""
    home = tmp_path / "home"
    if not (home / "models" / "m").exists():
        build_tiny_llama(home / "models" / "m")
    items = [row(f"h{n}", f"Held question {n} of the kraken", "Held answer", expected="x")
             for n in range(3)]  # fmt: skip
    (tmp_path / "train.jsonl").write_bytes(jsonl(clean_rows(20)))
    (tmp_path / "dev.jsonl").write_bytes(held_out(items[:2]).content)
    (tmp_path / "heldout.jsonl").write_bytes(held_out(items[2:]).content)
    document = job(**changes).model_dump(mode="json", by_alias=True)
    document["data"][0]["uri"] = (tmp_path / "train.jsonl").as_uri()
    for name in ("dev", "heldout"):
        document["evaluation"][name]["uri"] = (tmp_path / f"{name}.jsonl").as_uri()
    fact = Intake(home, store, read_files=True).consider(REF, json.dumps(document).encode())
    assert isinstance(fact, RunAccepted), fact
    return fact


def run_of(*events: Event) -> Run:
    return fold(REF, recorded_log(REF, list(events)))


@pytest.mark.req("H9")
async def test_training_is_refused_an_evaluation_set_whatever_names_its_digest(tmp_path: Path):
    store = ArtifactStore((tmp_path / "artifacts").as_uri())
    taken = accepted(tmp_path, store)
    workshop = Workshop(TrainingSettings(home=tmp_path / "home"), store)
    sets = [Pinned.parse(s.uri).digest for s in (taken.job.evaluation.dev,
                                                 taken.job.evaluation.heldout)]  # fmt: skip
    curated = Desk(store, NothingPrivate(), tmp_path / "work").curate(run_of(taken))
    assert isinstance(curated, DatasetCurated)
    for forged in (*({"train": digest} for digest in sets), {"validation": sets[0]}):
        dataset = curated.model_copy(update=forged)
        with pytest.raises(EvaluationWithheld) as refused:
            await workshop.order(run_of(taken, advised(), dataset))
        assert refused.value.digest in sets
        assert refused.value.digest in str(refused.value)
    folders = (tmp_path / "home").rglob("*.jsonl")
    assert not any(b"kraken" in path.read_bytes() for path in folders)
    assert isinstance(await workshop.order(run_of(taken, advised(), curated)), Order)


@pytest.mark.req("H9")
def test_the_handle_of_the_training_path_neither_reads_nor_writes_a_registered_set(tmp_path: Path):
    store = ArtifactStore((tmp_path / "artifacts").as_uri())
    taken = accepted(tmp_path, store)
    held = Pinned.parse(taken.job.evaluation.heldout.uri).digest
    content = store.get(held)
    handle, other = store.for_training("demo"), store.for_training("other")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "rows").write_bytes(content)
    tree = store.put_tree(tmp_path / "folder")
    for attempt in (
        lambda: handle.get(held),
        lambda: handle.fetch(held, tmp_path / "out"),
        lambda: handle.put(content),
        lambda: handle.put_file(tmp_path / "heldout.jsonl"),
        lambda: handle.put_tree(tmp_path / "folder"),
        lambda: handle.fetch_tree(tree, tmp_path / "tree"),
    ):
        with pytest.raises(EvaluationWithheld, match=held):
            attempt()
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "tree" / "rows").exists()
    assert handle.get(store.put(b"rows to learn")) == b"rows to learn"
    assert other.get(held) == content, "a tenant cannot withhold another's data by naming it"


@pytest.mark.req("H9")
def test_a_dataset_that_would_be_an_evaluation_set_is_not_written(tmp_path: Path):
    store = ArtifactStore((tmp_path / "artifacts").as_uri())
    taken = accepted(tmp_path, store)
    desk = Desk(store, NothingPrivate(), tmp_path / "work")
    curated = desk.curate(run_of(taken))
    assert isinstance(curated, DatasetCurated)
    store.register_evaluation("demo", curated.train)
    with pytest.raises(EvaluationWithheld, match=curated.train):
        desk.curate(run_of(taken))


@pytest.mark.req("H9")
async def test_the_sets_of_a_run_that_an_older_version_took_in_are_registered_when_seen(
    tmp_path: Path,
):
    store = ArtifactStore((tmp_path / "artifacts").as_uri())
    taken = accepted(tmp_path, store)
    dev, held = (Pinned.parse(s.uri).digest for s in (taken.job.evaluation.dev,
                                                      taken.job.evaluation.heldout))  # fmt: skip

    def older_version() -> None:
        shutil.rmtree(tmp_path / "artifacts" / "evaluation")
        assert not store.is_evaluation("demo", held)

    older_version()
    curated = Desk(store, NothingPrivate(), tmp_path / "work").curate(run_of(taken))
    assert isinstance(curated, DatasetCurated)
    assert store.is_evaluation("demo", dev)
    assert store.is_evaluation("demo", held)
    assert not store.is_evaluation("other", held)
    older_version()
    workshop = Workshop(TrainingSettings(home=tmp_path / "home"), store)
    forged = curated.model_copy(update={"train": held})
    with pytest.raises(EvaluationWithheld, match=held):
        await workshop.order(run_of(taken, advised(), forged))
