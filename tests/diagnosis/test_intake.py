"""Intake on real files, a real store and a model folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from contracts.diagnosis import RunAccepted, RunRejected
from contracts.subjects import RunRef
from services.diagnosis.intake import Intake
from shared.artifacts import ArtifactStore, Pinned
from tests.diagnosis.jobs import job

REF = RunRef("demo", "r1")
ROWS = [{"id": f"r{n}", "messages": [{"role": "user", "content": f"q{n}"}]} for n in range(3)]


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore((tmp_path / "artifacts").as_uri())


@pytest.fixture
def intake(tmp_path: Path, store: ArtifactStore) -> Intake:
    model = tmp_path / "home" / "models" / "m"
    model.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (model / name).write_text("{}")
    return Intake(tmp_path / "home", store, read_files=True)


def document(folder: Path, **changes: Any) -> dict[str, Any]:
    """A job whose files lie in `folder`."""
    found: dict[str, Any] = job(**changes).model_dump(mode="json", by_alias=True)
    for name, field in (("a", "target"), ("b", "expected"), ("c", "expected")):
        lines = "".join(json.dumps(row | {field: "x"}) + "\n" for row in ROWS)
        (folder / f"{name}.jsonl").write_text(lines)
    found["data"][0]["uri"] = (folder / "a.jsonl").as_uri()
    found["evaluation"]["dev"]["uri"] = (folder / "b.jsonl").as_uri()
    found["evaluation"]["heldout"]["uri"] = (folder / "c.jsonl").as_uri()
    return found


def problems(fact: object) -> dict[str, str]:
    assert isinstance(fact, RunRejected)
    assert all(problem.mend for problem in fact.problems)
    return {problem.where: problem.problem for problem in fact.problems}


def test_an_accepted_job_names_its_files_by_digest_and_survives_their_change(
    intake: Intake, store: ArtifactStore, tmp_path: Path
) -> None:
    body = json.dumps(document(tmp_path)).encode()
    fact = intake.consider(REF, body)
    assert isinstance(fact, RunAccepted)
    pinned = Pinned.parse(fact.job.data[0].uri)
    assert pinned.name == "a.jsonl"
    assert intake.consider(REF, body) == fact
    before = store.get(pinned.digest)
    (tmp_path / "a.jsonl").write_text("changed")
    assert store.get(pinned.digest) == before


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"\xff{not json", id="not-json"),
        pytest.param(b"[]", id="not-an-object"),
        pytest.param(b"{}", id="empty"),
    ],
)
def test_what_is_no_job_is_rejected(intake: Intake, body: bytes) -> None:
    assert problems(intake.consider(REF, body))


def test_unknown_and_missing_fields_are_named(intake: Intake, tmp_path: Path) -> None:
    wrong = document(tmp_path)
    wrong["colour"] = "blue"
    del wrong["behaviour"]["target"]
    found = problems(intake.consider(REF, json.dumps(wrong).encode()))
    assert found == {"colour": "is not a known field", "behaviour.target": "is missing"}


def test_a_missing_file_an_absent_base_and_another_tenant_are_named_at_once(
    intake: Intake, tmp_path: Path
) -> None:
    wrong = document(tmp_path, base__model="absent", tenant="globex")
    (tmp_path / "a.jsonl").unlink()
    found = problems(intake.consider(REF, json.dumps(wrong).encode()))
    assert {"data[0].uri", "base.model", "tenant"} <= found.keys()


def test_evaluation_rows_that_cannot_be_scored_are_named_by_line(
    intake: Intake, tmp_path: Path
) -> None:
    body = json.dumps(document(tmp_path)).encode()
    rows = [json.dumps(ROWS[0] | {"expected": "x"}), "{broken", json.dumps(ROWS[1])]
    (tmp_path / "b.jsonl").write_text("\n".join(rows))
    found = problems(intake.consider(REF, body))
    assert found.keys() == {"b.jsonl:2", "b.jsonl:3"}


def test_a_server_that_takes_digests_only_refuses_paths(
    tmp_path: Path, store: ArtifactStore, intake: Intake
) -> None:
    closed = Intake(tmp_path / "home", store, read_files=False)
    found = problems(closed.consider(REF, json.dumps(document(tmp_path)).encode()))
    assert "digests only" in found["data[0].uri"]
