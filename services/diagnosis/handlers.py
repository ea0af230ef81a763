"""Diagnosis: the user's commands at the door, and the question whether to train."""

from __future__ import annotations

import asyncio
import logging

from nats.aio.msg import Msg
from pydantic import ValidationError

from contracts.commands import Cancel, Reconsider
from contracts.diagnosis import DecisionReopened, RunAccepted, RunCancelled
from contracts.subjects import RunRef
from services.diagnosis.clinic import Clinic, Verdict
from services.diagnosis.intake import Intake
from services.diagnosis.reopening import Reopening, reopening
from shared.errors import PermanentError
from shared.messaging.runlog import RunClosed
from shared.messaging.steps import Malformed, Step, Steps

log = logging.getLogger("sluice.diagnosis")


class UnknownRun(PermanentError):
    """A command for a run that was never submitted."""


class RunExists(PermanentError):
    """A second, different job under one run id."""


class RunActive(PermanentError):
    """A retry of a run that has not ended."""


def register(steps: Steps, intake: Intake, clinic: Clinic) -> None:
    """Subscribe to submit, cancel, retry and reconsider commands and to accepted runs."""

    @steps.command("submit")
    async def submit(ref: RunRef, message: Msg) -> None:
        fact = await asyncio.to_thread(intake.consider, ref, message.data)
        run = await steps.runlog.load(ref)
        if run.version:
            if isinstance(fact, RunAccepted) and run.job_digest == fact.job_digest:
                return  # the same job again
            if run.job is None and run.log[0].event == fact:
                return
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
        if run.job is None or run.job_digest is None:
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
        again = RunAccepted(job=run.job, job_digest=run.job_digest, attempt=run.attempt + 1)
        await steps.runlog.append(
            ref, again, cause=cause, key=f"attempt-{again.attempt}", reopen=True
        )

    @steps.command("reconsider")
    async def reconsider(ref: RunRef, message: Msg) -> None:
        try:
            command = Reconsider.model_validate_json(message.data or b"{}")
        except ValidationError as error:
            raise Malformed(
                f"reconsider of {ref}: {error}", mend="see `sluice schema command.reconsider`"
            ) from error
        run = await steps.runlog.load(ref)
        if not run.version:
            raise UnknownRun(f"there is no run {ref}", mend="see `sluice runs`")
        cause = cause_of(message)
        if run.log[-1].cause == cause and not isinstance(run.log[-1].event, DecisionReopened):
            return
        match reopening(run, command):
            case str() as stands:
                log.info("the decision of %s stands: %s", ref, stands)
            case Reopening() as found:
                await steps.runlog.append(ref, found.fact, cause=cause, reopen=True)
                if (follows := await asyncio.to_thread(found.next_fact, ref, intake)) is not None:
                    await steps.runlog.append(ref, follows, cause=cause, reopen=True)

    @steps.on("diagnose")
    async def diagnose(step: Step) -> Verdict:
        return await clinic.diagnose(step)


def cause_of(message: Msg) -> str:
    """The identity of a command: its place in the JOBS stream."""
    return f"JOBS:{message.metadata.sequence.stream}"
