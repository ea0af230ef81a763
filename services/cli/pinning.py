"""Pinning: a job's files go into the artifact store and the job names them by digest from then on.

Relative paths are relative to the job file, so a job and its data travel as one folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ValidationError

from contracts.base import Problem
from contracts.data import Annotation, Document, RowTemplate, parse_row
from contracts.job import AdaptationJob
from services.cli.jobfile import JobFile, Location
from shared.artifacts import ArtifactStore, Pinned
from shared.errors import InvalidInput
from shared.failures.log import read_traces

MOST_PROBLEMS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedFile:
    """One file of a job."""

    field: str
    uri: str
    pinned: Pinned
    rows: int | None
    """None for content that is already in the store."""


def pin(
    job: AdaptationJob, source: JobFile, store: ArtifactStore, *, dry_run: bool = False
) -> tuple[AdaptationJob, tuple[PinnedFile, ...]]:
    """The job with every uri a digest, its files stored (unless `dry_run`).

    Raises:
        InvalidInput: a file is missing, holds a malformed row, or a digest is not in the store.
    """
    document = job.model_dump(mode="json", by_alias=True)
    pinned: list[PinnedFile] = []
    problems: list[Problem] = []
    for location, holder in _sources(document):
        key = str(location[-1])
        count = _counter(location)
        try:
            done = _pin_one(str(holder[key]), location, source, store, count, dry_run=dry_run)
        except InvalidInput as error:
            problems.extend(error.problems)
            continue
        holder[key] = str(done.pinned)
        pinned.append(done)
    if problems:
        raise InvalidInput(problems[:MOST_PROBLEMS])
    document["base"]["model"] = _base(job.base.model, source.path.parent)
    return AdaptationJob.model_validate(document), tuple(pinned)


def _sources(document: dict[str, Any]) -> Iterator[tuple[Location, dict[str, Any]]]:
    for index, source in enumerate(document["data"]):
        yield ("data", index, "uri"), source
        if source["failures"] is not None:
            yield ("data", index, "failures"), source
    for name in ("dev", "heldout"):
        yield ("evaluation", name, "uri"), document["evaluation"][name]
    if document["curation"]["annotations"] is not None:
        yield ("curation", "annotations"), document["curation"]
    if (synthesis := document["synthesis"]) is not None:
        for name in ("templates", "simulator"):
            if synthesis[name] is not None:
                yield ("synthesis", name), synthesis
        if synthesis["panel"] is not None:
            yield ("synthesis", "panel", "gold"), synthesis["panel"]
    if document["ladder"]["corpus"] is not None:
        yield ("ladder", "corpus", "uri"), document["ladder"]["corpus"]


def _counter(location: Location) -> Callable[[Path], int]:
    if location[-1] == "failures":
        return _count_traces
    if location[-1] == "annotations":
        return partial(_count_lines, Annotation.model_validate_json, "annotation")
    if location[-1] == "templates":
        return partial(_count_lines, RowTemplate.model_validate_json, "row-template")
    if location[-1] == "simulator":
        return lambda path: path.read_bytes().count(b"\n")
    if location[0] == "ladder":
        return partial(_count_lines, Document.model_validate_json, "document")
    return partial(_count_lines, parse_row, "row")


def _base(model: str, folder: Path) -> str:
    """A checkpoint folder beside the job file becomes absolute; a model's name stays a name."""
    beside = folder / model
    return str(beside.resolve()) if (beside / "config.json").is_file() else model


def _pin_one(
    uri: str,
    location: Location,
    source: JobFile,
    store: ArtifactStore,
    count: Callable[[Path], int],
    *,
    dry_run: bool,
) -> PinnedFile:
    field = source.where(location)
    if uri.startswith("sha256:"):
        try:
            known = Pinned.parse(uri)
        except ValueError as error:
            raise _bad(field, str(error), "name a file instead") from error
        if not store.has(known.digest):
            raise _bad(field, f"{uri} is not in the artifact store", "name a file instead")
        return PinnedFile(field=field, uri=uri, pinned=known, rows=None)
    path = _path(uri, source.path.parent, field)
    try:
        rows = count(path)
        digest = _digest_of(path) if dry_run else store.put_file(path)
    except OSError as error:
        reason = f"{path}: {error.strerror}"
        raise _bad(field, reason, "paths are relative to the job file") from error
    return PinnedFile(field=field, uri=uri, pinned=Pinned.named(digest, path), rows=rows)


def _path(uri: str, folder: Path, field: str) -> Path:
    parts = urlsplit(uri)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    if "://" in uri:
        mend = "download it first; jobs name files, file:// or sha256:"
        raise _bad(field, f"{parts.scheme}:// is not supported", mend)
    return folder / uri


def _count_lines(parse: Callable[[bytes], BaseModel], what: str, path: Path) -> int:
    """Rows or documents of a JSON Lines file, a line at a time, whatever its size.

    Raises InvalidInput naming the first malformed ones.
    """
    mend = f"one JSON object a line; see `sluice schema {what}`"
    rows = 0
    problems: list[Problem] = []
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            rows += 1
            try:
                parse(line)
            except ValidationError as error:
                detail = error.errors()[0]
                at = ".".join(str(part) for part in detail["loc"])
                problem = f"{at}: {detail['msg']}" if at else detail["msg"]
                where = f"{path.name}:{number}"
                problems.append(Problem(where=where, problem=problem, mend=mend))
                if len(problems) == MOST_PROBLEMS:
                    break
    if not rows:
        raise _bad(path.name, f"holds no {what}s", mend)
    if problems:
        raise InvalidInput(problems)
    return rows


def _count_traces(path: Path) -> int:
    """Traces of a failure log. Raises InvalidInput naming the malformed ones."""
    return len(read_traces(path.read_bytes(), path.name))


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def _bad(where: str, problem: str, mend: str) -> InvalidInput:
    return InvalidInput([Problem(where=where, problem=problem, mend=mend)])
