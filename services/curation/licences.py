"""May we train on this? SPDX licences against the job's allow list, and provenance (C4).

Three answers are kept apart: allowed; *unknown* (no SPDX expression: nobody can say what it
permits); *incompatible* (a known licence this job does not accept). `proprietary:<tenant>` is
allowed to that tenant alone. A row may carry its own `meta.licence`, held to the same rule.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from contracts.base import Problem
from contracts.job import AdaptationJob
from services.curation.rows import TracedRow

PROPRIETARY = "proprietary:"


def licence_problem(
    licence: str, where: str, *, allowed: Collection[str], tenant: str
) -> Problem | None:
    """None when `licence` permits training, else what is wrong with it."""
    if licence.startswith(PROPRIETARY):
        owner = licence.removeprefix(PROPRIETARY)
        if owner == tenant:
            return None
        return Problem(
            where=where,
            problem=f"incompatible licence: proprietary data of {owner!r}, not of {tenant!r}",
            mend="remove the data, or obtain it under a licence the job allows",
        )
    try:
        expression = str(canonicalize_license_expression(licence))
    except InvalidLicenseExpression:
        near = difflib.get_close_matches(licence, sorted(allowed), n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return Problem(
            where=where,
            problem=f"unknown licence: {licence!r} is no SPDX expression",
            mend=f"{hint}use an SPDX identifier, or {PROPRIETARY}{tenant} for your own data",
        )
    if permits(expression, frozenset(a.casefold() for a in allowed)):
        return None
    return Problem(
        where=where,
        problem=f"incompatible licence: {expression} is not on the job's allow list",
        mend="remove the data, or add the licence to curation.licences after review",
    )


def permits(expression: str, allowed: Collection[str]) -> bool:
    """Whether a canonical SPDX expression is satisfied by `allowed` (case-folded identifiers).

    OR needs one side, AND both; `X WITH Y` counts as one identifier.
    """
    tokens = expression.replace("(", " ( ").replace(")", " ) ").split()
    position = 0

    def any_of() -> bool:
        nonlocal position
        value = all_of()
        while position < len(tokens) and tokens[position] == "OR":
            position += 1
            value = all_of() or value
        return value

    def all_of() -> bool:
        nonlocal position
        value = one()
        while position < len(tokens) and tokens[position] == "AND":
            position += 1
            value = one() and value
        return value

    def one() -> bool:
        nonlocal position
        if tokens[position] == "(":
            position += 1
            value = any_of()
            position += 1
            return value
        name = tokens[position]
        position += 1
        if position + 1 < len(tokens) and tokens[position] == "WITH":
            name = f"{name} WITH {tokens[position + 1]}"
            position += 2
        return name.casefold() in allowed

    return any_of()


def source_problems(job: AdaptationJob) -> list[Problem]:
    """Licence and provenance of every source the job names."""
    allowed, problems = job.curation.licences, []
    for index, source in enumerate(job.data):
        where = f"data[{index}].licence ({source.uri})"
        found = licence_problem(source.licence, where, allowed=allowed, tenant=job.tenant)
        if found:
            problems.append(found)
        if not source.provenance.source.strip():
            problems.append(
                Problem(
                    where=f"data[{index}].provenance ({source.uri})",
                    problem="no provenance",
                    mend="say where the rows came from",
                )
            )
    return problems


def row_problem(traced: TracedRow, job: AdaptationJob) -> Problem | None:
    """What is wrong with the licence that a row carries itself, if it carries one."""
    licence = traced.row.meta.get("licence", traced.row.meta.get("license"))
    if licence is None:
        return None
    allowed = job.curation.licences
    return licence_problem(str(licence), traced.where, allowed=allowed, tenant=job.tenant)
