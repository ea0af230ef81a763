"""Rollout's steps: begin, watch, advance, guard; the commands approve, hold, rollback; the alarm.

Nothing is kept between them: a killed service finds its place in the run log, and its counts in the
TELEMETRY stream from the stage's `since` on.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from nats.aio.msg import Msg
from pydantic import ValidationError

from contracts.alerts import Alert
from contracts.base import Event, Frozen
from contracts.commands import Hold, Rollback
from contracts.job import RolloutPolicy
from contracts.registry import CandidateRegistered
from contracts.rollout import RolloutHeld, StageJudged, StageStarted
from contracts.run import Run
from contracts.subjects import RunRef
from contracts.telemetry import Outcome
from contracts.topology import consumer
from services.rollout import ladder
from services.rollout.adapters.traffic import Traffic
from services.rollout.announcement import announced
from services.rollout.judge import Verdict, alarm, conclude, judge, looks
from services.rollout.limits import Limits
from services.rollout.stage import Window
from shared.errors import TransientError
from shared.messaging.delivery import ServiceStops
from shared.messaging.steps import Malformed, Step, Steps
from shared.messaging.tail import BATCH

log = logging.getLogger("sluice.rollout")

Said = TypeVar("Said", bound=Frozen)

PROGRESS_EVERY_S = 2.0
GUARDED_OUTCOMES = 200_000
"""A hold may last days: its guard begins a new window after this many, so memory stays bounded.
Each new window spends one more stage's share of the error."""


@dataclass(frozen=True, slots=True)
class Sole:
    """The right to begin a rollout on one deployment."""

    runs: list[Run]
    """The tenant's rollouts, as they were when the right was taken."""
    still: Callable[[], Awaitable[None]]
    """Renews it; to be asked right before what it allows. Raises LeaseLost: `runs` is outdated."""


def register(steps: Steps) -> None:
    """Register every step of the service."""
    service = steps.bus.service

    def traffic() -> Traffic:
        return Traffic(steps.bus.jetstream, steps.runlog)

    def workers(purpose: str) -> int:
        """One for each message the server lets out: none waits in a queue without a heartbeat."""
        return consumer(service, purpose).max_ack_pending

    @asynccontextmanager
    async def sole_rollout(tenant: str, deployment: str) -> AsyncIterator[Sole]:
        """The tenant's rollouts, and nobody else begins one on this deployment meanwhile.

        Raises LeaseHeld while another replica does: the message comes again.
        """
        leases = await steps.leases()
        # Commands take no leases of runs, so their consumer's name is free for one of deployments.
        free = consumer(service, "approve").durable
        lease = await leases.acquire(f"{tenant}.{deployment}.{free}")
        try:
            yield Sole(await traffic().runs_on(tenant), partial(leases.renew, lease))
        finally:
            await leases.release(lease)

    @steps.on("begin")
    async def begin(step: Step) -> None:
        """A registered candidate goes into shadow, unless its deployment is taken."""
        candidate = step.trigger.event
        assert isinstance(candidate, CandidateRegistered)
        async with sole_rollout(step.run.ref.tenant, candidate.deployment) as sole:
            other = ladder.occupant(sole.runs, candidate.deployment, but=step.run.ref)
            if other is not None:
                await step.state(ladder.occupied(candidate, other))
                return
            stage = ladder.first_stage(candidate, since=await traffic().next_sequence())
            await sole.still()
            await step.state(announced(step.run, stage))

    @steps.on("watch", workers=workers("watch"))
    async def watch(step: Step) -> Event | None:
        """Count live outcomes until the stage can be judged, or its time is up."""
        stage = step.trigger.event
        assert isinstance(stage, StageStarted)
        policy = ladder.policy_of(step.run)
        age_s = time.time() - step.trigger.at.timestamp()
        # from here on by the clock that cannot jump
        deadline = time.monotonic() + policy.stage_timeout_s - max(0.0, age_s)
        return await _follow(steps, traffic(), step, stage, deadline)

    @steps.on("guard", workers=workers("guard"))
    async def guard(step: Step) -> Event | None:
        """A held rollout still answers its share: go on looking for harm until it is released."""
        stage = step.run.stage
        if stage is None:
            return None
        return await _follow(steps, traffic(), step, stage, None)

    @steps.on("advance", done=lambda run, trigger: ladder.awaited(run, trigger) is None)
    async def advance(step: Step) -> None:
        """A verdict leads to the next stage, completion, a hold or a rollback."""
        verdict = ladder.awaited(step.run, step.trigger)
        assert verdict is not None
        judged = verdict.event
        assert isinstance(judged, StageJudged)
        runs = await traffic().runs_on(step.run.ref.tenant)
        since = await traffic().next_sequence()
        incumbent = ladder.incumbent(runs, judged.deployment)
        await steps.runlog.decide(
            step.run.ref,
            lambda run: announced(
                run, ladder.decide(run, judged, since=since, incumbent=incumbent)
            ),
            cause=step.trigger.id,
            key=verdict.id,
        )

    @steps.command("approve")
    async def approve(ref: RunRef, _: Msg) -> None:
        """A person releases a held rollout."""
        run = await steps.runlog.load(ref)
        if run.status == "held" and ladder.unsigned_pass(run):
            raise TransientError(f"{ref}: the registry has not attested the passed stage yet")
        since = await traffic().next_sequence()
        stage = ladder.released(run, since=since)
        if stage is None:
            log.warning("%s: nothing waits for an approval (%s)", ref, run.status)
            return
        async with sole_rollout(ref.tenant, stage.deployment) as sole:
            if other := ladder.occupant(sole.runs, stage.deployment, but=ref):
                log.warning("%s: %s is still taken by %s", ref, stage.deployment, other)
                return
            hold = ladder.newest_hold(run)
            await sole.still()
            # One release per hold, however often the command is delivered.
            await steps.runlog.append(ref, announced(run, stage), cause=hold.id)

    @steps.command("hold")
    async def hold(ref: RunRef, message: Msg) -> None:
        """A person keeps a rollout where it is."""
        reason = _said(message, Hold).reason
        await steps.runlog.decide(
            ref, lambda run: ladder.held_by_hand(run, reason), cause=_cause(message)
        )

    @steps.command("rollback")
    async def roll_back(ref: RunRef, message: Msg) -> None:
        """A person ends a rollout."""
        reason = _said(message, Rollback).reason
        await end(
            await steps.runlog.load(ref),
            reason="rolled back by hand" + (f": {reason}" if reason else ""),
            mend="mend what was wrong and submit again",
            cause=_cause(message),
        )

    @steps.messages("alarm")
    async def alarm_rang(message: Msg) -> None:
        """A critical alert on a candidate ends its rollout at once (H8)."""
        alert = _said(message, Alert)
        if alert.state != "firing" or alert.severity != "critical":
            return
        for run in await traffic().runs_on(alert.tenant):
            stage = run.stage
            if stage and (stage.deployment, stage.adapter_id) == (alert.deployment, alert.model):
                await end(
                    run,
                    reason=f"alert {alert.metric} {alert.value:.3g} ({alert.window})",
                    mend=alert.remediation,
                    cause=alert.id,
                )

    async def end(run: Run, *, reason: str, mend: str, cause: str) -> None:
        if run.registered is None or not ladder.in_rollout(run):
            log.warning("%s: no rollout to end (%s)", run.ref, run.status)
            return
        runs = await traffic().runs_on(run.ref.tenant)
        to = ladder.incumbent(runs, run.registered.deployment)
        await steps.runlog.decide(
            run.ref,
            lambda now: ladder.rolled_back(now, to=to, reason=reason, mend=mend),
            cause=cause,
        )


def _cause(message: Msg) -> str:
    """The same for every delivery of one command."""
    return f"{message.metadata.stream}:{message.metadata.sequence.stream}"


def _said(message: Msg, kind: type[Said]) -> Said:
    """The body of a message. Raises Malformed."""
    try:
        return kind.model_validate_json(message.data or b"{}")
    except ValidationError as error:
        raise Malformed(
            f"{message.subject}: {error}", mend="send what `sluice schema` shows"
        ) from error


async def _follow(
    steps: Steps, traffic: Traffic, step: Step, stage: StageStarted, deadline: float | None
) -> Event | None:
    """Fold outcomes until a verdict. Without a deadline only evidence of harm is one.

    `deadline` is of the monotonic clock, in seconds.
    """
    run = step.run
    if run.job is None:
        raise ValueError(f"run {run.ref} has no job")
    limits, want = Limits.of(run.job), ladder.wanted(run.job.rollout, stage)
    window = _window(stage, limits)
    since = ladder.reference_since(run, stage)
    reported = 0.0
    batches = traffic.outcomes(run.ref.tenant, stage.deployment, since=since)
    async with aclosing(batches):
        async for batch in batches:
            for sequence, signal in batch:
                if sequence < stage.since:
                    if isinstance(signal, Outcome):
                        window.add_reference(signal)
                elif window.count(signal):
                    verdict = (
                        alarm(window, limits)
                        if deadline is None
                        else judge(window, limits, wanted=want)
                    )
                    if verdict:
                        return _judged(stage, verdict) if await _goes_on(step) else None
            if deadline is None and window.candidate.n + window.stable.n >= GUARDED_OUTCOMES:
                window = _window(stage, limits)
            if step.cancelled.is_set():
                return None
            if steps.bus.stopping.is_set():
                raise ServiceStops("the service stops; another goes on from the run log")
            caught_up = len(batch) < BATCH
            if caught_up and deadline is not None and time.monotonic() >= deadline:
                if not await _goes_on(step):
                    return None
                return _out_of_time(window, limits, stage, run.job.rollout, want)
            if time.monotonic() - reported >= PROGRESS_EVERY_S:
                reported = time.monotonic()
                if not await _goes_on(step):
                    return None
                await _report(step, stage, window, want)
    return None


def _window(stage: StageStarted, limits: Limits) -> Window:
    return Window(
        stage=stage.stage,
        adapter_id=stage.adapter_id,
        ratios=limits.ratios,
    )


def _out_of_time(
    window: Window, limits: Limits, stage: StageStarted, policy: RolloutPolicy, want: int
) -> Event:
    """An incomplete sample is held; a complete one in doubt is judged as it stands."""
    if window.outcomes < want:
        return ladder.timed_out(
            stage, have=window.outcomes, want=want, timeout_s=policy.stage_timeout_s
        )
    return _judged(stage, conclude(window, limits))


def _judged(stage: StageStarted, verdict: Verdict) -> StageJudged:
    return StageJudged(
        deployment=stage.deployment,
        adapter_id=stage.adapter_id,
        stage=stage.stage,
        percent=stage.percent,
        verdict=verdict.verdict,
        summary=verdict.summary,
        measurements=verdict.measurements,
        comparisons=verdict.comparisons,
    )


async def _goes_on(step: Step) -> bool:
    """Whether the run still rests where `step` began: a later stage or hold has its own judge."""
    run = await step.runlog.load(step.run.ref)
    rests = (r for r in reversed(run.log) if isinstance(r.event, (StageStarted, RolloutHeld)))
    return not run.closed and next(rests).id == step.trigger.id


async def _report(step: Step, stage: StageStarted, window: Window, want: int) -> None:
    have = window.outcomes
    share = stage.percent / 100 if stage.stage == "canary" else 1.0
    total = next((n for n in looks(want) if n > have), have)
    arm = window.candidate
    await step.progress(
        "rollout",
        f"{stage.label}: {have} of {total} outcomes, {total - have} more needed"
        f" (about {math.ceil((total - have) / share)} requests)"
        + (" (an estimate is outside its limits)" if have >= want else ""),
        done=have,
        total=total,
        percent=stage.percent,
        candidate_successes=arm.successes,
        candidate_errors=arm.errors,
        stable_outcomes=window.stable.n,
    )
