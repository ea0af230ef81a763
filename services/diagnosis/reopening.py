"""When a decision not to train is open again: prices, traffic, quality and latency may change.

A certificate lists bounds; an observation beyond one re-opens the question. An economic veto is
computed anew from its ledger. Nothing trains by itself: the fact tells whoever listens that a retry
may now end differently. Pure.
"""

from __future__ import annotations

from contracts.commands import Observe
from contracts.diagnosis import (
    DecisionReopened,
    Diagnosis,
    RungName,
    TrainingDeclined,
    TrainingVetoed,
)
from contracts.economics import Condition, Quantity
from contracts.job import AdaptationJob, Economics
from contracts.run import Run
from shared.economics import break_even

DEARER = 1.2
BUSIER = 2.0
SLOWER = 2.0
"""Times what was diagnosed: beyond it the lighter rung may no longer be the better choice."""


def conditions(job: AdaptationJob, diagnosis: Diagnosis, rung: RungName) -> tuple[Condition, ...]:
    """The bounds within which `rung` goes on being enough."""
    taken = next((result for result in diagnosis.rungs if result.rung == rung), None)
    usage = diagnosis.base_usage
    latency_ms = taken.latency_ms if taken else usage.latency_ms if usage else 0.0
    beyond: dict[Quantity, float] = {
        "price_per_mtok": DEARER * job.economics.price_per_mtok,
        "monthly_requests": BUSIER * (job.economics.monthly_requests or 0),
        "latency_ms": SLOWER * latency_ms,
    }
    return (
        Condition(quantity="success", below=diagnosis.target),
        *(Condition(quantity=what, above=bound) for what, bound in beyond.items() if bound > 0),
    )


_DECISIONS = (TrainingDeclined, TrainingVetoed)


def reconsidered(run: Run, seen: Observe) -> DecisionReopened | None:
    """The fact that `seen` leads to; None where the decision stands, or there was none."""
    decision = next((r.event for r in reversed(run.log) if isinstance(r.event, _DECISIONS)), None)
    match decision:
        case TrainingDeclined():
            reason = _broken(decision, seen)
        case TrainingVetoed() if run.job is not None:
            reason = _pays_now(run.job, seen)
        case _:
            return None
    if not reason or run.status not in ("declined", "halted"):
        return None
    return DecisionReopened(
        quantity=seen.quantity, value=seen.value, reason=reason, source=seen.source
    )


def observed(job: AdaptationJob, reopened: tuple[DecisionReopened, ...]) -> AdaptationJob:
    """The job with the prices and the traffic that re-opened its question."""
    economics = job.economics
    for fact in reopened:
        economics = _with(economics, fact.quantity, fact.value)
    return job.model_copy(update={"economics": economics})


def _broken(decision: TrainingDeclined, seen: Observe) -> str:
    for condition in decision.conditions:
        if condition.quantity == seen.quantity and condition.broken(seen.value):
            side = "below" if condition.below is not None else "above"
            bound = condition.below if condition.below is not None else condition.above
            return (
                f"{seen.quantity} is {seen.value:g}, {side} {bound:g}; {decision.rung} was enough"
            )
    return ""


def _pays_now(job: AdaptationJob, seen: Observe) -> str:
    ledger = _with(job.economics, seen.quantity, seen.value).ledger
    if ledger is None:
        return ""
    found = break_even(ledger)
    return found.reason if found.verdict == "pays" else ""


def _with(economics: Economics, quantity: Quantity, value: float) -> Economics:
    if quantity not in Economics.model_fields:
        return economics
    exact = round(value) if quantity == "monthly_requests" else value
    return economics.model_copy(update={quantity: exact})
