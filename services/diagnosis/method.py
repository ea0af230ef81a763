"""Which method trains, why not the others (D6), and whether its data suffices (D7).

The policy walks the method matrix (`methods.yaml`): a method fits if the facts it needs hold and
the data lie in its range; of those that fit and are available, the lowest rank trains. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from contracts.base import Problem
from contracts.data import Row
from contracts.diagnosis import MethodChoice
from contracts.job import AdaptationJob, MethodName
from services.diagnosis.matrix import Fact, MethodRow, matrix, row_of

CHARACTERS_PER_TOKEN = 4
"""Of running text, about; the matrix's ranges are powers of ten."""


def text_tokens(rows: Iterable[Row]) -> int:
    """About how many tokens the documents among `rows` have."""
    texts = (row.target or "" for row in rows if row.document is not None)
    return sum(map(len, texts)) // CHARACTERS_PER_TOKEN


def facts(job: AdaptationJob, rows: int, tokens: int = 0) -> frozenset[Fact]:
    """What holds of a job with `rows` rows and so many `tokens` of raw text among them.

    A job without raw text holds demonstrations of one behaviour: no preference records, and no sign
    that its base is too large for the machine (training's memory preflight knows that).
    """
    held: dict[Fact, bool] = {
        "demonstrations": rows > 0 and not tokens,
        "raw_text": tokens > 0,
        "synthesis": job.synthesis is not None,
        "teacher_price": job.economics.teacher_price_per_mtok is not None,
        "teacher": job.method.distillation is not None,
    }
    return frozenset(fact for fact, holds in held.items() if holds)


def choose(job: AdaptationJob, rows: int, tokens: int = 0) -> MethodChoice:
    """The job's own method, or for `auto` the lowest rank that fits; every other with its reason.

    Where none fits, the lowest rank available is named: the preflight then says what it lacks.
    """
    held = facts(job, rows, tokens)
    if job.method.name != "auto":
        chosen, reason = row_of(job.method.name), "the job names it"
    else:
        ranked = sorted(
            (row for row in matrix().values() if row.rank is not None and row.available),
            key=lambda row: row.rank or 0,
        )
        chosen = next((row for row in ranked if not unfit(row, rows, held, tokens)), ranked[0])
        reason = f"{rows:,} pairs; {chosen.chosen}"
    rejected = {
        row.method: unfit(row, rows, held, tokens) or _passed_over(row, job)
        for row in matrix().values()
        if row != chosen
    }
    return MethodChoice(
        method=cast("MethodName", chosen.method), reason=reason, rejected=dict(rejected)
    )


def unfit(row: MethodRow, rows: int, held: frozenset[Fact], tokens: int = 0) -> str:
    """Why a method does not fit a job of `rows` rows; empty if it does."""
    for fact, why in row.needs.items():
        if fact not in held:
            return why
    if row.data is None:
        return ""
    amount = tokens if row.data.unit == "tokens" else rows
    if amount < row.data.low:
        return f"wants at least {row.data.low:,} {row.data.unit}; there are {amount:,}"
    if amount > row.data.high:
        return f"wants at most {row.data.high:,} {row.data.unit}; there are {amount:,}"
    return ""


def _passed_over(row: MethodRow, job: AdaptationJob) -> str:
    if row.rank is not None and job.method.name != "auto":
        return f"the job names {job.method.name}; {row.passed_over}"
    return row.passed_over


def preflight(
    job: AdaptationJob, method: MethodName, rows: int, tokens: int = 0
) -> tuple[Problem, ...]:
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
    amount = tokens if wanted is not None and wanted.unit == "tokens" else rows
    if wanted is not None and amount < wanted.low and not job.method.data_range_override:
        problems.append(
            Problem(
                where="data",
                problem=f"{method} wants at least {wanted.low:,} {wanted.unit}; "
                f"there are {amount:,}",
                mend="Add data, choose a lighter method, or give method.data_range_override.",
            )
        )
    return tuple(problems)
