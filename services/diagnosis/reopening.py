"""Whether news re-opens a run's decision (D4, E2). Pure.

A decision holds under conditions. One against training, because a lighter rung suffices, names them
in its certificate; the economic veto holds while the student does not pay for itself; a run that
trains does so because it does. News that touch none of them change nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from contracts.commands import Reconsider
from contracts.diagnosis import (
    DecisionReopened,
    RunAccepted,
    RunRejected,
    TrainingDeclined,
)
from contracts.economics import Ledger
from contracts.job import AdaptationJob, Economics
from contracts.run import Run
from contracts.subjects import RunRef
from services.diagnosis.intake import Intake
from shared.economics import BreakEven, break_even

REOPEN_WHEN = (
    "the measured success of the rung that suffices falls below the target",
    "price, traffic or latency of that rung changes",
    "the behaviour or its evaluation sets change",
)
"""The conditions of a do-not-train certificate."""
_OF_THE_RUNG = ("price_per_mtok", "monthly_requests", "tokens_per_request", "latency_ms")
_SIGNIFICANT = 0.05
"""A change of less than this share is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reopening:
    """The fact that a decision is open again, and the job it is taken on."""

    fact: DecisionReopened
    job: AdaptationJob
    attempt: int
    decided_anew: bool
    """False where nothing can be taken back: the adapter serves."""

    def next_fact(self, ref: RunRef, intake: Intake) -> RunAccepted | RunRejected | None:
        """What the run goes on with: another attempt, or the veto with its numbers."""
        if not self.decided_anew:
            return None
        body = self.job.model_dump_json(by_alias=True).encode()
        found = intake.consider(ref, body)
        if isinstance(found, RunAccepted):
            return found.model_copy(update={"attempt": self.attempt})
        return found


def reopening(run: Run, news: Reconsider) -> Reopening | str:
    """The re-opened decision of `run`, or why it stands."""
    job = run.job or _rejected_job(run)
    if job is None:
        return "the document that was submitted is no job"
    changed = job.model_copy(update={"economics": with_news(job.economics, news)})
    reason = _reason(run, job, changed, news)
    if reason is None:
        return "no condition it was taken under has changed enough"
    said = f"{reason}; {news.reason}" if news.reason else reason
    return Reopening(
        fact=DecisionReopened(reason=said, news=news.news),
        job=changed,
        attempt=run.attempt + 1,
        decided_anew=run.status in ("active", "held", "rejected", "declined", "diagnosed"),
    )


def with_news(economics: Economics, news: Reconsider) -> Economics:
    """The job's economics as they are now."""
    known = {k: v for k, v in news.news.items() if k in Economics.model_fields}
    return economics.model_copy(update=known)


def _reason(run: Run, job: AdaptationJob, changed: AdaptationJob, news: Reconsider) -> str | None:
    before, after = _pays(job.economics.ledger), _pays(changed.economics.ledger)
    if before is not None and after is not None:
        paid, pays = before.verdict == "pays", after.verdict == "pays"
        if paid != pays:
            return f"the student {'pays now' if pays else 'no longer pays'}: {after.reason}" + (
                f" (before: {before.reason})"
            )
    if run.status == "declined":
        return _certificate_reason(run, job, news)
    return None


def _certificate_reason(run: Run, job: AdaptationJob, news: Reconsider) -> str | None:
    """Which condition of the do-not-train certificate no longer holds."""
    declined = next(r.event for r in reversed(run.log) if isinstance(r.event, TrainingDeclined))
    target, success = job.behaviour.target, news.success
    if success is not None and success < target:
        return f"{REOPEN_WHEN[0]}: {declined.rung} is at {success:.1%}, the target is {target:.1%}"
    known = {
        "price_per_mtok": job.economics.price_per_mtok,
        "monthly_requests": job.economics.monthly_requests,
        "tokens_per_request": job.economics.tokens_per_request,
        "latency_ms": next(
            (r.latency_ms for r in declined.diagnosis.rungs if r.rung == declined.rung), None
        ),
    }
    for name in _OF_THE_RUNG:
        now, then = news.news.get(name), known[name]
        if now is not None and (then is None or abs(now - then) > _SIGNIFICANT * then):
            was = "unknown" if then is None else f"{then:g}"
            return f"{REOPEN_WHEN[1]}: {name} of {declined.rung} is {now:g}, was {was}"
    return None


def _pays(ledger: Ledger | None) -> BreakEven | None:
    return None if ledger is None else break_even(ledger)


def _rejected_job(run: Run) -> AdaptationJob | None:
    events = [r.event for r in run.log]
    return next((e.job for e in reversed(events) if isinstance(e, RunRejected)), None)
