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
from tests.diagnosis.failures.accuracy import labelled
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


@pytest.mark.req("C8")
def test_a_group_in_both_evaluation_sets_is_refused_by_name(intake: Intake, tmp_path: Path) -> None:
    def write(name: str, groups: list[str | None]) -> None:
        lines = [
            json.dumps({**ROWS[n], "expected": "x", "group": group})
            for n, group in enumerate(groups)
        ]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))

    body = json.dumps(document(tmp_path)).encode()
    write("b", ["user-1", "user-2", None])
    write("c", ["user-3", "user-2", None])
    found = problems(intake.consider(REF, body))
    assert found == {"evaluation.heldout": "shares 1 group with dev: user-2"}
    write("c", ["user-3", "user-4", None])
    assert isinstance(intake.consider(REF, body), RunAccepted)


@pytest.mark.req("D4")
def test_a_corpus_is_pinned_with_the_job_and_a_malformed_one_refused(
    intake: Intake, store: ArtifactStore, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus.jsonl"
    submitted = document(tmp_path, ladder={"corpus": {"uri": corpus.as_uri()}})
    corpus.write_text('{"id": "a", "text": "b"}\n')
    fact = intake.consider(REF, json.dumps(submitted).encode())
    assert isinstance(fact, RunAccepted)
    assert fact.job.ladder.corpus is not None
    assert store.get(Pinned.parse(fact.job.ladder.corpus.uri).digest) == corpus.read_bytes()
    corpus.write_text('{"id": "a"}\n')
    found = problems(intake.consider(REF, json.dumps(submitted).encode()))
    assert found == {"ladder.corpus.uri": "text: is missing"}


@pytest.mark.req("H7")
@pytest.mark.parametrize(("cause", "accepted"), [("retrieval", False), ("adaptation", True)])
def test_rows_from_failures_are_accepted_only_if_their_log_speaks_for_training(
    intake: Intake, tmp_path: Path, cause: str, accepted: bool
) -> None:
    traces = [case.trace for case in labelled("tune") if case.cause == cause]
    log = tmp_path / "failures.jsonl"
    log.write_text("".join(trace.model_dump_json() + "\n" for trace in traces))
    submitted = document(tmp_path)
    submitted["data"][0]["failures"] = log.as_uri()
    fact = intake.consider(REF, json.dumps(submitted).encode())
    if accepted:
        assert isinstance(fact, RunAccepted), fact
        assert fact.job.data[0].failures.startswith("sha256:")
    else:
        assert "Retrieval" in problems(fact)["data[0].failures"]
