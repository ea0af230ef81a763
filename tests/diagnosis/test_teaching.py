"""The teacher of a distillation at the door: pinned, licensed, itself, and read alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from contracts.diagnosis import RunAccepted, RunRejected
from contracts.subjects import RunRef
from services.diagnosis.intake import Intake
from services.diagnosis.method import choose, preflight
from shared.artifacts import ArtifactStore
from shared.models import base_digest
from tests.diagnosis.jobs import job
from tests.diagnosis.test_intake import document

REF = RunRef("demo", "r1")
ENDPOINT = {"model": "large", "url": "http://teacher/v1"}
TOKENIZER: dict[str, Any] = {"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": []}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A student, a teacher of its vocabulary, and one of another."""
    wider = {"model": {"vocab": {"a": 0, "b": 1, "c": 2}}}
    for name, tokenizer in (("m", TOKENIZER), ("large", TOKENIZER), ("stranger", wider)):
        folder = tmp_path / "home" / "models" / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"name": name}))
        (folder / "model.safetensors").write_text(name)
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return tmp_path / "home"


@pytest.fixture
def submit(home: Path, tmp_path: Path):
    intake = Intake(home, ArtifactStore((tmp_path / "artifacts").as_uri()), read_files=True)

    def submit(teacher: dict[str, Any], **changes: Any) -> RunAccepted | RunRejected:
        wanted = {"teacher": {"name": "Large", "licence": "MIT", **teacher}}
        for name in ("objective",):
            wanted |= {name: changes.pop(name)} if name in changes else {}
        changes |= {"method__name": "distillation", "method__distillation": wanted}
        return intake.consider(REF, json.dumps(document(tmp_path, **changes)).encode())

    return submit


def problem(fact: RunAccepted | RunRejected) -> dict[str, tuple[str, str]]:
    assert isinstance(fact, RunRejected)
    return {p.where: (p.problem, p.mend) for p in fact.problems}


@pytest.mark.req("T1", "T8")
def test_an_accepted_job_names_its_teacher_by_digest(submit, home: Path) -> None:
    fact = submit({"checkpoint": "large"})
    assert isinstance(fact, RunAccepted)
    teacher = fact.job.method.distillation.teacher
    assert teacher.digest == base_digest(home / "models" / "large")
    assert teacher.tokenizer
    assert submit({"checkpoint": "large", "digest": teacher.digest}) == fact


def test_a_teacher_other_than_the_one_named_is_refused(submit) -> None:
    found = problem(submit({"checkpoint": "large", "digest": "sha256:" + "0" * 64}))
    assert "and the job names sha256:0000" in found["method.distillation.teacher.digest"][0]


def test_a_teacher_whose_licence_the_job_may_not_use_is_refused(submit) -> None:
    found = problem(submit({"checkpoint": "large", "licence": "proprietary:others"}))
    said, mend = found["method.distillation.teacher.licence"]
    assert "'proprietary:others' may not be trained on" in said
    assert "MIT" in mend
    mine = submit({"checkpoint": "large", "licence": "proprietary:demo"})
    assert isinstance(mine, RunAccepted)


@pytest.mark.req("T1")
def test_logits_of_another_vocabulary_are_refused_and_sequences_offered(submit) -> None:
    said, mend = problem(submit({"checkpoint": "stranger"}))["method.distillation.objective"]
    assert "the student has 2 tokens and the teacher 3" in said
    assert "Set it to sequence" in mend
    offered = submit({"checkpoint": "stranger", "endpoint": ENDPOINT}, objective="sequence")
    assert isinstance(offered, RunAccepted)


@pytest.mark.parametrize(
    ("teacher", "changes", "where", "says"),
    [
        pytest.param({"checkpoint": "m"}, {}, "teacher.checkpoint", "own base", id="itself"),
        pytest.param({"checkpoint": "x"}, {}, "teacher.checkpoint", "no model folder", id="gone"),
        pytest.param({"endpoint": ENDPOINT}, {}, "distillation", "name its checkpoint", id="url"),
        pytest.param(
            {"checkpoint": "large"},
            {"objective": "sequence"},
            "distillation",
            "name its endpoint",
            id="nobody to ask",
        ),
        pytest.param(
            {"endpoint": ENDPOINT},
            {"objective": "sequence", "synthesis": {"rows": 3}},
            "synthesis",
            "asks its teacher for the rows itself",
            id="two that ask",
        ),
        pytest.param(
            {"endpoint": ENDPOINT},
            {"objective": "reasoning"},
            "answer_marker",
            "nothing says where that begins",
            id="a trace without a final answer",
        ),
    ],
)
def test_a_distillation_that_cannot_be_is_refused_by_name(
    submit, teacher: dict[str, Any], changes: dict[str, Any], where: str, says: str
) -> None:
    try:
        found = problem(submit(teacher, **changes))
    except ValueError as error:  # the test's own job is refused where it is written
        found = {"method.distillation": (str(error), "")}
    assert any(name.endswith(where) and says in said for name, (said, _) in found.items()), found


def test_a_distillation_without_a_teacher_is_refused(home: Path, tmp_path: Path) -> None:
    intake = Intake(home, ArtifactStore((tmp_path / "artifacts").as_uri()), read_files=True)
    body = json.dumps(document(tmp_path, method__name="distillation")).encode()
    assert "none is named" in problem(intake.consider(REF, body))["method.distillation"][0]


@pytest.mark.req("D6", "D7")
def test_the_matrix_offers_distillation_to_a_job_with_teacher_price_and_outputs() -> None:
    wanted = {"teacher": {"name": "Large", "licence": "MIT", "checkpoint": "large"}}
    asked = job(economics__teacher_price_per_mtok=5, method__distillation=wanted)
    assert choose(asked, 200_000).method == "distillation"
    few = choose(asked, 5_000)
    assert few.method == "lora"
    assert "100,000 teacher outputs; there are 5,000" in few.rejected["distillation"]
    untaught = choose(job(economics__teacher_price_per_mtok=5), 200_000)
    assert "names no teacher" in untaught.rejected["distillation"]
    named = job(method__name="distillation", method__distillation=wanted)
    (short,) = preflight(named, "distillation", 99_999)
    assert "at least 100,000 teacher outputs" in short.problem
    assert preflight(named, "distillation", 100_000) == ()
