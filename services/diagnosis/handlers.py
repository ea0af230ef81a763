"""Diagnosis: the user's commands at the door, and the question whether to train."""

from __future__ import annotations

import asyncio

from nats.aio.msg import Msg
from pydantic import ValidationError

from contracts.commands import Cancel, Observe
from contracts.diagnosis import RunAccepted, RunCancelled
from contracts.evaluation import GateJudged
from contracts.subjects import RunRef
from services.diagnosis.clinic import Clinic, Verdict
from services.diagnosis.intake import Intake, job_digest
from services.diagnosis.reopening import observed, reconsidered
from services.diagnosis.replanning import next_attempt
from shared.errors import PermanentError
from shared.messaging.runlog import RunClosed
from shared.messaging.steps import Malformed, Step, Steps


class UnknownRun(PermanentError):
    """A command for a run that was never submitted."""


class RunExists(PermanentError):
    """A second, different job under one run id."""


class RunActive(PermanentError):
    """A retry of a run that has not ended."""


def register(steps: Steps, intake: Intake, clinic: Clinic) -> None:
    """Subscribe to submit, cancel, retry and observe commands and to accepted runs."""

    @steps.command("submit")
    async def submit(ref: RunRef, message: Msg) -> None:
        fact = await asyncio.to_thread(intake.consider, ref, message.data)
        run = await steps.runlog.load(ref)
        if run.version:
            if run.log[0].event == fact:
                return  # the same job again
            raise RunExists(
                f"run {ref} exists with another job", mend="submit it under another run id"
            )
        await steps.runlog.append(ref, fact, cause=cause_of(message), key="submit")

    @steps.command("cancel")
    async def cancel(ref: RunRef, message: Msg) -> None:
        try:
            command = Cancel.model_validate_json(message.data or b"{}")
        except ValidationError as error:
            raise Malformed(
                f"cancel of {ref}: {error}", mend="see `sluice schema cancel`"
            ) from error
        run = await steps.runlog.load(ref)
        if not run.version:
            raise UnknownRun(f"there is no run {ref}", mend="see `sluice runs`")
        try:
            await steps.runlog.append(
                ref, RunCancelled(reason=command.reason), cause=cause_of(message)
            )
        except RunClosed:
            return  # it has ended already: there is nothing to stop

    @steps.command("retry")
    async def retry(ref: RunRef, message: Msg) -> None:
        run = await steps.runlog.load(ref)
        if run.job is None:
            raise UnknownRun(
                f"run {ref} has no accepted job to retry", mend="submit it under a new run id"
            )
        cause = cause_of(message)
        if any(record.cause == cause for record in run.log):
            return
        if not run.closed or run.status == "promoted":
            raise RunActive(
                f"run {ref} is {run.status}", mend="only a run that ended unpromoted is retried"
            )
        job = observed(run.job, run.reopened)
        again = RunAccepted(job=job, job_digest=job_digest(job), attempt=run.attempt + 1)
        await steps.runlog.append(
            ref, again, cause=cause, key=f"attempt-{again.attempt}", reopen=True
        )

    @steps.command("observe")
    async def observe(ref: RunRef, message: Msg) -> None:
        try:
            seen = Observe.model_validate_json(message.data)
        except ValidationError as error:
            raise Malformed(
                f"observe of {ref}: {error}", mend="see `sluice schema command.observe`"
            ) from error
        run = await steps.runlog.load(ref)
        if not run.version:
            raise UnknownRun(f"there is no run {ref}", mend="see `sluice runs`")
        if fact := reconsidered(run, seen):
            await steps.runlog.append(ref, fact, cause=cause_of(message), reopen=True)

    @steps.on("replan", after_the_end=True)
    async def replan(step: Step) -> None:
        """A gate failed: the job's attempt budget may allow a changed attempt (G11)."""
        if not isinstance(step.trigger.event, GateJudged):
            return
        again = next_attempt(step.run, step.trigger.event)
        if again is not None:
            key = f"attempt-{again.attempt}"
            await steps.runlog.append(
                step.run.ref, again, cause=step.trigger.id, key=key, reopen=True
            )

    @steps.on("diagnose")
    async def diagnose(step: Step) -> Verdict:
        return await clinic.diagnose(step)


def cause_of(message: Msg) -> str:
    """The identity of a command: its place in the JOBS stream."""
    return f"JOBS:{message.metadata.sequence.stream}"
