"""Intake: a submitted document becomes an accepted run with pinned inputs, or a list of problems.

Everything that can be refused before work begins is refused here, all at once: unknown fields, a
tenant that is not the subject's, a base that is not there, files that cannot be read, licences the
job does not allow.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from contracts.base import Digest, Problem, digest_of
from contracts.data import Row, parse_row
from contracts.diagnosis import RunAccepted, RunRejected
from contracts.job import AdaptationJob
from contracts.subjects import RunRef
from services.diagnosis.causes import failure_log_problems
from services.diagnosis.checks import document_problems, group_problems, job_problems
from services.diagnosis.teaching import pinned_teacher, teaching_problems
from shared.artifacts import ArtifactStore, Pinned, evaluation_sets, pin
from shared.errors import ArtifactMissing, InvalidInput
from shared.models import resolve_base
from shared.problems import problems_of
from shared.scoring import resolve as resolve_scorer

NAMED_ROWS = 20


class Intake:
    """Accepts or rejects submitted jobs."""

    def __init__(self, home: Path, artifacts: ArtifactStore, *, read_files: bool) -> None:
        self._home = home
        self._artifacts = artifacts
        self._read_files = read_files

    def consider(self, ref: RunRef, body: bytes) -> RunAccepted | RunRejected:
        """The first fact of the run. The same document gives the same fact."""
        try:
            job = AdaptationJob.model_validate_json(body)
        except ValidationError as error:
            return RunRejected(problems=problems_of(error))
        pinned, problems = self._pin(job)
        problems = [*self._policy_problems(ref, job), *problems]
        if problems:
            return RunRejected(problems=tuple(problems))
        for digest in evaluation_sets(pinned):
            self._artifacts.register_evaluation(ref.tenant, digest)
        return RunAccepted(job=pinned, job_digest=job_digest(pinned))

    def _policy_problems(self, ref: RunRef, job: AdaptationJob) -> Iterator[Problem]:
        yield from job_problems(job, tenant=ref.tenant)
        yield from teaching_problems(job)
        try:
            resolve_base(job.base, self._home)
        except InvalidInput as error:
            yield from error.problems

    def _pin(self, job: AdaptationJob) -> tuple[AdaptationJob, list[Problem]]:
        """The job with every URI pinned, and what could not be."""
        document = job.model_dump(mode="json", by_alias=True)
        problems: list[Problem] = []
        for where, holder, key in _uris(document):
            try:
                holder[key] = self._pinned(holder[key])
            except (OSError, ValueError, ArtifactMissing) as error:
                reason = getattr(error, "strerror", None) or str(error)
                problems.append(
                    Problem(
                        where=where,
                        problem=f"cannot be read: {reason}",
                        mend="name a readable JSON Lines file, or a digest in the artifact store",
                    )
                )
                continue
            if where.startswith("evaluation."):
                problems.extend(self._row_problems(job, holder[key]))
            elif where.startswith("ladder."):
                problems.extend(document_problems(where, self._content(holder[key])))
        teacher, unfit = pinned_teacher(job, self._home)
        problems.extend(unfit)
        if teacher is not None:
            document["method"]["distillation"]["teacher"] = teacher.model_dump(mode="json")
        pinned = AdaptationJob.model_validate(document)
        if not problems:
            sets = (
                self._rows(pinned.evaluation.dev.uri),
                self._rows(pinned.evaluation.heldout.uri),
            )
            problems.extend(group_problems(*sets))
            problems.extend(failure_log_problems(pinned, self._content))
        return pinned, problems

    def _content(self, uri: str) -> bytes:
        return self._artifacts.get(Pinned.parse(uri).digest)

    def _rows(self, uri: str) -> list[Row]:
        return [parse_row(line) for line in self._content(uri).splitlines() if line.strip()]

    def _pinned(self, uri: str) -> str:
        if not self._read_files and not uri.startswith("sha256:"):
            raise ValueError(
                "this server takes digests only; `sluice submit` uploads files for you"
            )
        return str(pin(self._artifacts, uri, closed=[self._home]))  # keys, others' artifacts

    def _row_problems(self, job: AdaptationJob, uri: str) -> list[Problem]:
        """Evaluation rows must parse and carry what the job's scorer checks."""
        pinned = Pinned.parse(uri)
        try:
            score = resolve_scorer(job.behaviour)
        except InvalidInput:
            return []  # named already, with the behaviour
        problems: list[Problem] = []
        for number, line in enumerate(self._content(uri).splitlines(), start=1):
            if not line.strip():
                continue
            where = f"{pinned.name}:{number}"
            try:
                score(parse_row(line), "")
            except ValidationError as error:
                problem = "; ".join(f"{p.where}: {p.problem}" for p in problems_of(error))
                problems.append(
                    Problem(where=where, problem=problem, mend="see `sluice schema row`")
                )
            except InvalidInput as error:
                problems += [p.model_copy(update={"where": where}) for p in error.problems]
        return problems[:NAMED_ROWS]


def job_digest(job: AdaptationJob) -> Digest:
    """The identity of a pinned job."""
    return digest_of(job.model_dump_json(by_alias=True).encode())


def _uris(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """(where, the object that holds it, its key) of every URI of a job."""
    for index, source in enumerate(document["data"]):
        yield f"data[{index}].uri", source, "uri"
        if source["failures"] is not None:
            yield f"data[{index}].failures", source, "failures"
    for name in ("dev", "heldout"):
        yield f"evaluation.{name}.uri", document["evaluation"][name], "uri"
    if document["ladder"]["corpus"] is not None:
        yield "ladder.corpus.uri", document["ladder"]["corpus"], "uri"
