"""Which method trains, why not the others (D6), and whether its data suffices (D7).

The policy walks the method matrix (`methods.yaml`): a method fits if the facts it needs hold and
the data lie in its range; of those that fit and are available, the lowest rank trains. Pure.
"""

from __future__ import annotations

from typing import cast

from contracts.base import Problem
from contracts.diagnosis import MethodChoice
from contracts.job import AdaptationJob, MethodName
from services.diagnosis.matrix import Fact, MethodRow, matrix, row_of


def facts(job: AdaptationJob, rows: int) -> frozenset[Fact]:
    """What holds of a job with `rows` answered rows.

    A job holds demonstrations of one behaviour: no preference records, no raw text, and no sign
    that its base is too large for the machine (training's memory preflight knows that).
    """
    held: dict[Fact, bool] = {
        "demonstrations": rows > 0,
        "synthesis": job.synthesis is not None,
        "teacher_price": job.economics.teacher_price_per_mtok is not None,
        "teacher": job.method.distillation is not None,
    }
    return frozenset(fact for fact, holds in held.items() if holds)


def choose(job: AdaptationJob, rows: int) -> MethodChoice:
    """The job's own method, or for `auto` the lowest rank that fits; every other with its reason.

    Where none fits, the lowest rank available is named: the preflight then says what it lacks.
    """
    held = facts(job, rows)
    if job.method.name != "auto":
        chosen, reason = row_of(job.method.name), "the job names it"
    else:
        ranked = sorted(
            (row for row in matrix().values() if row.rank is not None and row.available),
            key=lambda row: row.rank or 0,
        )
        chosen = next((row for row in ranked if not unfit(row, rows, held)), ranked[0])
        reason = f"{rows:,} pairs; {chosen.chosen}"
    rejected = {
        row.method: unfit(row, rows, held) or _passed_over(row, job)
        for row in matrix().values()
        if row != chosen
    }
    return MethodChoice(
        method=cast("MethodName", chosen.method), reason=reason, rejected=dict(rejected)
    )


def unfit(row: MethodRow, rows: int, held: frozenset[Fact]) -> str:
    """Why a method does not fit a job of `rows` rows; empty if it does."""
    for fact, why in row.needs.items():
        if fact not in held:
            return why
    if row.data is None:
        return ""
    if rows < row.data.low:
        return f"wants at least {row.data.low:,} {row.data.unit}; there are {rows:,}"
    if rows > row.data.high:
        return f"wants at most {row.data.high:,} {row.data.unit}; there are {rows:,}"
    return ""


def _passed_over(row: MethodRow, job: AdaptationJob) -> str:
    if row.rank is not None and job.method.name != "auto":
        return f"the job names {job.method.name}; {row.passed_over}"
    return row.passed_over


def preflight(job: AdaptationJob, method: MethodName, rows: int) -> tuple[Problem, ...]:
    """What speaks against training `method` on this data; empty if nothing does.

    Too few rows are let through with `method.data_range_override`, a reason that lands on the card.
    """
    row, problems = row_of(method), []
    if not row.available:
        usable = sorted(r.method for r in matrix().values() if r.available and r.rank is not None)
        problems.append(
            Problem(
                where="method.name",
                problem=f"this version cannot train {method}",
                mend=f"Use {', '.join(usable)}, or auto.",
            )
        )
    if method == "preference" and job.synthesis is not None:
        problems.append(
            Problem(
                where="synthesis",
                problem="synthesis writes demonstrations; preference tuning needs judged answers",
                mend="Drop synthesis from the job, or use method.name lora.",
            )
        )
    wanted = row.data
    if wanted is not None and rows < wanted.low and not job.method.data_range_override:
        problems.append(
            Problem(
                where="data",
                problem=f"{method} wants at least {wanted.low:,} {wanted.unit}; there are {rows:,}",
                mend="Add data, choose a lighter method, or give method.data_range_override.",
            )
        )
    return tuple(problems)
