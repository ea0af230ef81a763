"""What is wrong with a job that its schema cannot see, each problem with its mend."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from contracts.base import Problem
from contracts.data import Row
from contracts.job import AdaptationJob
from services.diagnosis.retrieval import read_documents
from shared.economics import break_even
from shared.errors import InvalidInput
from shared.problems import problems_of
from shared.scoring import resolve

NAMED_GROUPS = 5


def job_problems(
    job: AdaptationJob, *, tenant: str, deployments: Mapping[str, str] | None = None
) -> tuple[Problem, ...]:
    """Problems of the document itself.

    `tenant` is the tenant whose subject the job came in on. `deployments` maps each deployment that
    exists to the tenant that owns it.
    """
    problems = []
    if job.tenant != tenant:
        problems.append(
            _problem("tenant", f"{job.tenant!r} came in as {tenant!r}", "Use your own.")
        )
    allowed = {*job.curation.licences, f"proprietary:{job.tenant}"}
    problems += [
        _problem(
            where,
            f"licence {licence!r} may not be trained on or evaluated with",
            f"Use one of {', '.join(sorted(allowed))}, or extend curation.licences.",
        )
        for where, licence in _licences(job)
        if licence not in allowed
    ]
    problems += [
        _problem("data", f"{uri} is listed {count} times", "List each file once.")
        for uri, count in Counter(source.uri for source in job.data).items()
        if count > 1
    ]
    evaluated = {job.evaluation.dev.uri: "dev", job.evaluation.heldout.uri: "heldout"}
    if len(evaluated) == 1:
        problems.append(_problem("evaluation", "dev and held-out are one file", "Keep two sets."))
    problems += [
        _problem(
            f"data[{n}].uri",
            f"is the {evaluated[source.uri]} set too",
            "Never train on what judges the training.",
        )
        for n, source in enumerate(job.data)
        if source.uri in evaluated
    ]
    problems += [
        _problem(
            f"data[{n}].failures",
            "the rows were made from a failure log that is not named, so it cannot be diagnosed",
            "Name the log of traces in `failures` (see `sluice failures`).",
        )
        for n, source in enumerate(job.data)
        if source.provenance.failure_log and source.failures is None
    ]
    if job.ladder.corpus is not None and job.ladder.corpus.uri in evaluated:
        problems.append(
            _problem("ladder.corpus", "is an evaluation set", "Never retrieve what judges.")
        )
    owner = (deployments or {}).get(job.rollout.deployment, job.tenant)
    if owner != job.tenant:
        problems.append(
            _problem("rollout.deployment", "belongs to another tenant", "Choose another name.")
        )
    try:
        resolve(job.behaviour)
    except InvalidInput as error:
        problems += error.problems
    return tuple(problems)


def economic_problems(job: AdaptationJob) -> tuple[Problem, ...]:
    """The veto (E2): a student that will not have paid for itself by the horizon."""
    ledger = job.economics.ledger
    if ledger is None or (found := break_even(ledger)).verdict == "pays":
        return ()
    return (
        _problem(
            "economics",
            f"does not pay: {found.reason}",
            "Serve the teacher, lower the one-off cost, or correct the projection "
            "(`sluice economics` shows what matters most).",
        ),
    )


def group_problems(dev: Sequence[Row], heldout: Sequence[Row]) -> tuple[Problem, ...]:
    """Groups with items in both sets: rungs chosen on dev would be known to held-out already.

    One problem, which names the first few groups.
    """
    shared = sorted({r.group for r in dev if r.group} & {r.group for r in heldout if r.group})
    if not shared:
        return ()
    named = ", ".join(shared[:NAMED_GROUPS]) + (", …" if len(shared) > NAMED_GROUPS else "")
    return (
        _problem(
            "evaluation.heldout",
            f"shares {len(shared)} {'group' if len(shared) == 1 else 'groups'} with dev: {named}",
            "Keep all items of a group in one of the two sets.",
        ),
    )


def document_problems(where: str, content: bytes) -> tuple[Problem, ...]:
    """Why `content` is no corpus: the first malformed line, or no line at all."""
    mend = "One JSON object with id and text a line; see `sluice schema document`."
    try:
        documents = read_documents(content)
    except ValidationError as error:
        first = problems_of(error)[0]
        return (_problem(where, f"{first.where}: {first.problem}", mend),)
    return () if documents else (_problem(where, "holds no documents", mend),)


def _licences(job: AdaptationJob) -> list[tuple[str, str]]:
    found = [(f"data[{n}].licence", source.licence) for n, source in enumerate(job.data)]
    found.append(("evaluation.dev.licence", job.evaluation.dev.licence))
    found.append(("evaluation.heldout.licence", job.evaluation.heldout.licence))
    if (distillation := job.method.distillation) is not None:
        found.append(("method.distillation.teacher.licence", distillation.teacher.licence))
    return found


def _problem(where: str, problem: str, mend: str) -> Problem:
    return Problem(where=where, problem=problem, mend=mend)
