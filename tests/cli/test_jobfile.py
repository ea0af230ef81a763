"""A job file's problems name the file, the line, the field and the mend."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.cli.jobfile import read_job
from services.cli.pinning import pin
from shared.artifacts import ArtifactStore, Pinned
from shared.errors import InvalidInput


def problems_of(path: Path) -> list[tuple[str, str, str]]:
    with pytest.raises(InvalidInput) as caught:
        read_job(path)
    return [(row.where, row.problem, row.mend) for row in caught.value.problems]


def edit(folder: Path, before: str, after: str) -> Path:
    path = folder / "job.yaml"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))
    return path


def test_a_date_stays_text(job_folder) -> None:
    job, _ = read_job(job_folder / "job.yaml")
    assert job.data[0].provenance.retrieved == "2026-05-04"


@pytest.mark.parametrize(
    ("before", "after", "where", "problem", "mend"),
    [
        pytest.param(
            "target: 0.6",
            "target: 1.5",
            "job.yaml:9: behaviour.target",
            "input should be less than or equal to 1, not 1.5",
            "see `sluice schema job`",
            id="out of range",
        ),
        pytest.param(
            "    licence: Apache-2.0\n",
            "    license: Apache-2.0\n",
            "job.yaml:12: data[0].license",
            "is not a field of a job",
            "did you mean `licence`?",
            id="misspelled",
        ),
        pytest.param(
            "tenant: demo\n",
            "",
            "job.yaml:1: tenant",
            "is missing",
            "add `tenant`; see `sluice schema job`",
            id="missing",
        ),
        pytest.param(
            "tenant: demo\n",
            "tenant: demo\ntenant: other\n",
            "job.yaml:4: tenant",
            "is given twice",
            "keep one",
            id="twice",
        ),
        pytest.param(
            "base: {",
            "base: [",
            "job.yaml:5",
            "is not YAML: expected ',' or ']', but got '}'",
            "correct the syntax",
            id="syntax",
        ),
    ],
)
def test_a_problem_names_its_line_and_mend(job_folder, before, after, where, problem, mend) -> None:
    assert (where, problem, mend) in problems_of(edit(job_folder, before, after))


def test_json_is_read_too(job_folder) -> None:
    job, _ = read_job(job_folder / "job.yaml")
    path = job_folder / "job.json"
    path.write_text(job.model_dump_json(by_alias=True))
    assert read_job(path)[0] == job


def test_a_missing_file_is_a_problem(tmp_path) -> None:
    assert problems_of(tmp_path / "no.yaml")[0][1] == "No such file or directory"


def test_pinning_stores_files_and_names_them_by_digest(job_folder, tmp_path) -> None:
    store = ArtifactStore((tmp_path / "store").as_uri())
    job, source = read_job(job_folder / "job.yaml")
    pinned, files = pin(job, source, store)
    assert (
        store.get(Pinned.parse(pinned.data[0].uri).digest)
        == (job_folder / "train.jsonl").read_bytes()
    )
    assert (
        store.get(Pinned.parse(pinned.evaluation.dev.uri).digest)
        == (job_folder / "dev.jsonl").read_bytes()
    )
    assert [file.rows for file in files] == [3, 2, 2]
    again, _ = pin(pinned, source, store)
    assert again == pinned


def test_a_dry_run_stores_nothing(job_folder, tmp_path) -> None:
    store = ArtifactStore((tmp_path / "store").as_uri())
    job, source = read_job(job_folder / "job.yaml")
    pinned, _ = pin(job, source, store, dry_run=True)
    assert not store.has(Pinned.parse(pinned.data[0].uri).digest)


def test_every_bad_file_is_named_at_once(job_folder, tmp_path) -> None:
    (job_folder / "dev.jsonl").unlink()
    with (job_folder / "train.jsonl").open("a") as out:
        out.write('\n{"id": ""}\n')
    job, source = read_job(job_folder / "job.yaml")
    with pytest.raises(InvalidInput) as caught:
        pin(job, source, ArtifactStore((tmp_path / "store").as_uri()))
    where = [problem.where for problem in caught.value.problems]
    assert where == ["train.jsonl:5", "job.yaml:15: evaluation.dev.uri"]


@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        pytest.param("https://example.com/x.jsonl", "https:// is not supported", id="network"),
        pytest.param("sha256:" + "0" * 64, "is not in the artifact store", id="unknown digest"),
    ],
)
def test_an_unusable_uri_is_refused(job_folder, tmp_path, uri, problem) -> None:
    job, source = read_job(edit(job_folder, "uri: train.jsonl", f'uri: "{uri}"'))
    with pytest.raises(InvalidInput, match=problem):
        pin(job, source, ArtifactStore((tmp_path / "store").as_uri()))


@pytest.mark.req("H7")
def test_a_failure_log_travels_with_the_job_and_its_malformed_line_is_named(
    job_folder, tmp_path
) -> None:
    text = (job_folder / "job.yaml").read_text()
    assert "uri: train.jsonl" in text
    text = text.replace("uri: train.jsonl", "uri: train.jsonl\n    failures: failures.jsonl", 1)
    (job_folder / "job.yaml").write_text(text)
    log = job_folder / "failures.jsonl"
    log.write_text('{"id": "a", "request": "r", "answer": "x"}\n')
    job, source = read_job(job_folder / "job.yaml")
    store = ArtifactStore((tmp_path / "store").as_uri())
    pinned, files = pin(job, source, store)
    assert store.get(Pinned.parse(pinned.data[0].failures).digest) == log.read_bytes()
    assert [file.rows for file in files if file.uri == "failures.jsonl"] == [1]
    log.write_text('{"id": "a"}\n')
    with pytest.raises(InvalidInput, match=r"failures\.jsonl:1"):
        pin(job, source, store)
