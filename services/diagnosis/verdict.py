"""The measured verdict: train, decline because a lighter rung suffices, or halt (evaluation gap).

Nothing here asks a model; it reads what was asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from contracts.base import Problem
from contracts.diagnosis import Diagnosis, RungName, RungResult, RungSkipped, Usage
from contracts.job import AdaptationJob
from services.diagnosis.crossfit import best_way, cross_fitted
from services.diagnosis.usage import priced, usage
from shared.asking import Scored
from shared.statistics import compare_paired, mean_with_interval

RERUN_SHARE = 0.25
"""Share of dev items the base answers a second time."""
AGREEMENT = 0.90
"""Least share of re-run items that must get the same score."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredRung:
    """A rung's scored answers on the dev set, in the order of the base's."""

    rung: RungName
    scored: Sequence[Scored]
    variant: str = ""
    """The way to deploy, where there were several."""
    variants: int = 1
    costs: Sequence[float] | None = None
    """What each item cost; None where there is no price."""


def measured_rung(
    rung: RungName,
    names: Sequence[str],
    ways: Sequence[Sequence[Scored]],
    price_per_mtok: float = 0.0,
) -> MeasuredRung:
    """A rung from the answers of each way of taking it; several are cross-fitted."""
    picked = cross_fitted(ways)
    scored = tuple(ways[way][item] for item, way in enumerate(picked))
    return MeasuredRung(
        rung=rung,
        scored=scored,
        variant=names[best_way(ways)],
        variants=len(ways),
        costs=priced(scored, price_per_mtok),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What diagnosis decides."""

    decision: Literal["train", "decline"]
    diagnosis: Diagnosis
    rung: RungName | None = None
    """The rung that suffices; `no_adaptation` where the base itself does."""


def rerun_sample(items: int) -> range:
    """Indices of the dev items the base answers twice, spread over the set; at least 5 of them."""
    wanted = min(items, max(5, round(RERUN_SHARE * items)))
    return range(0, items, max(1, items // wanted)) if wanted else range(0)


def evaluation_gaps(
    job: AdaptationJob,
    *,
    dev: int,
    heldout: int,
    first: Sequence[Scored] = (),
    again: Sequence[Scored] = (),
) -> tuple[Problem, ...]:
    """Why there is no stable baseline (D5): too few items, or a re-run that disagrees."""
    least = job.evaluation.minimum_items
    problems = [
        Problem(
            where=f"evaluation.{name}",
            problem=f"{count} items; a baseline needs {least}",
            mend="Add items, or lower evaluation.minimum_items.",
        )
        for name, count in (("dev", dev), ("heldout", heldout))
        if count < least
    ]
    same = sum(a.value == b.value for a, b in zip(first, again, strict=True))
    if again and same / len(again) < AGREEMENT:
        problems.append(
            Problem(
                where="evaluation.dev",
                problem=f"a re-run of the base agrees on {same} of {len(again)} items",
                mend="Make the scorer and the endpoint deterministic; greedy answers must repeat.",
            )
        )
    return tuple(problems)


def decide(
    job: AdaptationJob,
    base: Sequence[Scored],
    rungs: Sequence[MeasuredRung],
    skipped: Sequence[RungSkipped] = (),
) -> Verdict:
    """The lightest way that reaches the target wins; only when none does is training advised.

    The base counts as a way (`no_adaptation`). A job may ask to train regardless, with a reason.
    """
    target = job.behaviour.target
    success = mean_with_interval("base_success", _values(base), _clusters(base))
    in_order = sorted(rungs, key=lambda measured: get_args(RungName).index(measured.rung))
    base_usage = usage(base, priced(base, job.economics.price_per_mtok))
    results = tuple(rung_result(measured, base, base_usage, target) for measured in in_order)
    reaching = [result.rung for result in results if result.reaches_target]
    suffices: RungName | None = "no_adaptation" if success.value >= target else None
    suffices = suffices or next(iter(reaching), None)
    notes = [f"{len(results)} lighter rungs measured on {len(base)} dev items"]
    if suffices and job.train_even_if_lighter_suffices:
        notes.append(
            f"{suffices} reaches the target; training goes ahead because: "
            f"{job.train_even_if_lighter_suffices}"
        )
    diagnosis = Diagnosis(
        base=success,
        target=target,
        rungs=results,
        skipped=tuple(skipped),
        notes=tuple(notes),
        base_usage=base_usage,
    )
    if suffices and not job.train_even_if_lighter_suffices:
        return Verdict(decision="decline", diagnosis=diagnosis, rung=suffices)
    return Verdict(decision="train", diagnosis=diagnosis)


def rung_result(
    measured: MeasuredRung, base: Sequence[Scored], base_usage: Usage, target: float
) -> RungResult:
    """A rung's success, its gain over the base on the same items, and what it adds to each item."""
    scored = measured.scored
    success = mean_with_interval(measured.rung, _values(scored), _clusters(scored))
    own = usage(scored, measured.costs)
    return RungResult(
        rung=measured.rung,
        success=success,
        against_base=compare_paired("success", _values(base), _values(scored), _clusters(base)),
        added_prompt_tokens=own.prompt_tokens - base_usage.prompt_tokens,
        added_completion_tokens=own.completion_tokens - base_usage.completion_tokens,
        latency_ms=own.latency_ms,
        added_latency_ms=own.latency_ms - base_usage.latency_ms,
        usage=own,
        reaches_target=success.value >= target,
        variant=measured.variant,
        variants=measured.variants,
    )


def _values(scored: Sequence[Scored]) -> list[float]:
    return [s.value for s in scored]


def _clusters(scored: Sequence[Scored]) -> list[str]:
    return [s.cluster for s in scored]
