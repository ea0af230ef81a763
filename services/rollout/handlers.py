"""Rollout's steps: begin, watch, advance, guard, and the approve command.

Nothing is kept between them: a killed service finds its place in the run log, and its counts in the
TELEMETRY stream from the stage's `since` on.
"""

from __future__ import annotations

import logging
import time
from contextlib import aclosing

from nats.aio.msg import Msg

from contracts.base import Event
from contracts.job import RolloutPolicy
from contracts.registry import CandidateRegistered
from contracts.rollout import StageJudged, StageStarted
from contracts.subjects import RunRef
from contracts.topology import consumer
from services.rollout import ladder
from services.rollout.adapters.traffic import Traffic
from services.rollout.judge import Limits, Verdict, alarm, conclude, judge, looks
from services.rollout.stage import Window
from shared.messaging.delivery import ServiceStops
from shared.messaging.steps import Step, Steps
from shared.messaging.tail import BATCH

log = logging.getLogger("sluice.rollout")

PROGRESS_EVERY_S = 2.0
GUARDED_OUTCOMES = 200_000
"""A hold may last days: its guard begins a new window after this many, so memory stays bounded.
Each new window spends one more stage's share of the error."""


def register(steps: Steps) -> None:
    """Register every step of the service."""
    service = steps.bus.service

    def traffic() -> Traffic:
        return Traffic(steps.bus.jetstream, steps.runlog)

    def workers(purpose: str) -> int:
        """One for each message the server lets out: none waits in a queue without a heartbeat."""
        return consumer(service, purpose).max_ack_pending

    @steps.on("begin")
    async def begin(step: Step) -> Event | None:
        """A registered candidate goes into shadow, unless its deployment is taken."""
        candidate = step.trigger.event
        assert isinstance(candidate, CandidateRegistered)
        runs = await traffic().runs_on(step.run.ref.tenant)
        other = ladder.occupant(runs, candidate.deployment, but=step.run.ref)
        if other is not None:
            return ladder.occupied(candidate, other)
        return ladder.first_stage(candidate, since=await traffic().next_sequence())

    @steps.on("watch", workers=workers("watch"))
    async def watch(step: Step) -> Event | None:
        """Count live outcomes until the stage can be judged, or its time is up."""
        stage = step.trigger.event
        assert isinstance(stage, StageStarted)
        policy = ladder.policy_of(step.run)
        deadline = step.trigger.at.timestamp() + policy.stage_timeout_s
        return await _follow(steps, traffic(), step, stage, deadline)

    @steps.on("guard", workers=workers("guard"))
    async def guard(step: Step) -> Event | None:
        """A held rollout still answers its share: go on looking for harm until it is released."""
        stage = step.run.stage
        if stage is None:
            return None
        return await _follow(steps, traffic(), step, stage, None)

    @steps.on("advance")
    async def advance(step: Step) -> Event | None:
        """A verdict leads to the next stage, completion, a hold or a rollback."""
        judged = step.trigger.event
        assert isinstance(judged, StageJudged)
        runs = await traffic().runs_on(step.run.ref.tenant)
        return ladder.decide(
            step.run,
            judged,
            since=await traffic().next_sequence(),
            incumbent=ladder.incumbent(runs, judged.deployment),
        )

    @steps.command("approve")
    async def approve(ref: RunRef, _: Msg) -> None:
        """A person releases a held rollout."""
        run = await steps.runlog.load(ref)
        since = await traffic().next_sequence()
        stage = ladder.released(run, since=since)
        if stage is None:
            log.warning("%s: nothing waits for an approval (%s)", ref, run.status)
            return
        runs = await traffic().runs_on(ref.tenant)
        if other := ladder.occupant(runs, stage.deployment, but=ref):
            log.warning("%s: %s is still taken by %s", ref, stage.deployment, other)
            return
        hold = ladder.newest_hold(run)
        # One release per hold, however often the command is delivered.
        await steps.runlog.append(ref, stage, cause=hold.id)


async def _follow(
    steps: Steps, traffic: Traffic, step: Step, stage: StageStarted, deadline: float | None
) -> Event | None:
    """Fold outcomes until a verdict. Without a deadline only evidence of harm is one."""
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
            for sequence, outcome in batch:
                if sequence < stage.since:
                    window.add_reference(outcome)
                elif window.add(outcome):
                    verdict = (
                        alarm(window, limits)
                        if deadline is None
                        else judge(window, limits, wanted=want)
                    )
                    if verdict:
                        if deadline is None and not await _still_held(step):
                            return None
                        return _judged(stage, verdict)
            if deadline is None and window.candidate.n + window.stable.n >= GUARDED_OUTCOMES:
                window = _window(stage, limits)
            if step.cancelled.is_set():
                return None
            if steps.bus.stopping.is_set():
                raise ServiceStops("the service stops; another goes on from the run log")
            caught_up = len(batch) < BATCH
            if caught_up and deadline is not None and time.time() >= deadline:
                return _out_of_time(window, limits, stage, run.job.rollout, want)
            if time.monotonic() - reported >= PROGRESS_EVERY_S:
                reported = time.monotonic()
                if deadline is None and not await _still_held(step):
                    return None
                await _report(step, stage, window, want)
    return None


def _window(stage: StageStarted, limits: Limits) -> Window:
    return Window(
        stage=stage.stage,
        adapter_id=stage.adapter_id,
        latency_limit=limits.maximum_latency_ratio,
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


async def _still_held(step: Step) -> bool:
    """Whether the run rests in the hold that `step` guards: a later stage has its own judge."""
    run = await step.runlog.load(step.run.ref)
    return run.status == "held" and run.log[-1].id == step.trigger.id


async def _report(step: Step, stage: StageStarted, window: Window, want: int) -> None:
    have = window.outcomes
    total = next((n for n in looks(want) if n > have), have)
    arm = window.candidate
    await step.progress(
        "rollout",
        f"{stage.label}: {have} of {total} outcomes, {total - have} more needed"
        + (" (an estimate is outside its limits)" if have >= want else ""),
        done=have,
        total=total,
        percent=stage.percent,
        candidate_successes=arm.successes,
        candidate_errors=arm.errors,
        stable_outcomes=window.stable.n,
    )
