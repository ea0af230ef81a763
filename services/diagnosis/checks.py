"""What is wrong with a job that its schema cannot see, each problem with its mend."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from contracts.base import Problem
from contracts.job import AdaptationJob
from shared.errors import InvalidInput
from shared.scoring import resolve


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


def _licences(job: AdaptationJob) -> list[tuple[str, str]]:
    found = [(f"data[{n}].licence", source.licence) for n, source in enumerate(job.data)]
    found.append(("evaluation.dev.licence", job.evaluation.dev.licence))
    found.append(("evaluation.heldout.licence", job.evaluation.heldout.licence))
    return found


def _problem(where: str, problem: str, mend: str) -> Problem:
    return Problem(where=where, problem=problem, mend=mend)
