"""Which method trains, why not the others (D6), and whether its data suffices (D7).

The numbers are the specification's method matrix.
"""

from __future__ import annotations

from dataclasses import dataclass

from contracts.base import Problem
from contracts.diagnosis import MethodChoice
from contracts.job import AdaptationJob, MethodName


@dataclass(frozen=True, slots=True)
class DataRange:
    """How much data a method wants."""

    low: int
    high: int
    unit: str


RANGES: dict[MethodName, DataRange] = {
    "sft": DataRange(10**3, 10**5, "pairs"),
    "instruction": DataRange(10**4, 10**5, "pairs"),
    "lora": DataRange(10**2, 10**4, "pairs"),
    "qlora": DataRange(10**2, 10**4, "pairs"),
    "preference": DataRange(10**3, 10**4, "preference records"),
    "domain_adaptation": DataRange(10**8, 10**10, "tokens"),
    "distillation": DataRange(10**5, 10**6, "teacher outputs"),
}
AVAILABLE: frozenset[MethodName] = frozenset({"lora"})
"""Methods the training service of this version carries out."""


def choose(job: AdaptationJob, rows: int) -> MethodChoice:
    """The job's own method, or for `auto` LoRA: the least data, the least memory, unloadable.

    Every other method gets the reason it was not chosen.
    """
    chosen: MethodName = job.method.name if job.method.name != "auto" else "lora"
    if job.method.name == "auto":
        reason = (
            f"{rows} pairs; LoRA learns from {RANGES['lora'].low} on, leaves the base frozen, "
            "can be unloaded, and forgets least"
        )
    else:
        reason = "the job names it"
    rejected = {m: _why_not(m, chosen, rows) for m in RANGES if m != chosen}
    return MethodChoice(method=chosen, reason=reason, rejected=dict(rejected))


def _why_not(method: MethodName, chosen: MethodName, rows: int) -> str:
    wanted = RANGES[method]
    if wanted.unit == "preference records":
        return "needs pairs of a better and a worse answer; the job has demonstrations"
    if wanted.unit == "tokens":
        return f"needs {wanted.low:.0e} raw tokens and moves the base's whole distribution"
    if rows < wanted.low:
        return f"wants at least {wanted.low:,} {wanted.unit}; there are {rows:,}"
    if method == "qlora":
        return "4-bit weights save memory that this base does not need, and cost precision"
    if method in ("sft", "instruction"):
        return "moves every weight: no unloading, a higher risk of forgetting"
    if method == "distillation":
        return "there is no teacher whose price it would save"
    return f"{chosen} was asked for"


def preflight(job: AdaptationJob, method: MethodName, rows: int) -> tuple[Problem, ...]:
    """What speaks against training `method` on this data; empty if nothing does.

    Too few rows are let through with `method.data_range_override`, a reason that lands on the card.
    """
    problems = []
    if method not in AVAILABLE:
        problems.append(
            Problem(
                where="method.name",
                problem=f"this version cannot train {method}",
                mend=f"Use {', '.join(sorted(AVAILABLE))}, or auto.",
            )
        )
    wanted = RANGES.get(method)
    if wanted is not None and rows < wanted.low and not job.method.data_range_override:
        problems.append(
            Problem(
                where="data",
                problem=f"{method} wants at least {wanted.low:,} {wanted.unit}; there are {rows:,}",
                mend="Add data, choose a lighter method, or give method.data_range_override.",
            )
        )
    return tuple(problems)
