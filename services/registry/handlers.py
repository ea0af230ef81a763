"""The registry's steps: a candidate's card, attestations, promotion, withdrawal; its history."""

from __future__ import annotations

import asyncio
import logging
from functools import partial

from nats.aio.msg import Msg
from pydantic import ValidationError

from contracts.commands import Withdraw
from contracts.registry import (
    AdapterPromoted,
    CandidateRegistered,
    RegistrationRefused,
    VerdictAttested,
)
from contracts.run import Run
from contracts.subjects import RunRef
from services.registry.chain import attested, awaits_attestation
from services.registry.registry import Registry
from shared.messaging.steps import Malformed, Step, Steps

log = logging.getLogger("sluice.registry")


def register(steps: Steps, registry: Registry) -> None:
    """Subscribe to gate verdicts, to the rollout's end, and to the withdraw command."""

    @steps.on("register", done=lambda run, _trigger: run.registered is not None)
    async def register_candidate(
        step: Step,
    ) -> CandidateRegistered | RegistrationRefused | None:
        if not step.run.required_gates_passed():
            return None  # the gates still under way will call again
        fact = await asyncio.to_thread(registry.register, step.run)
        assert step.run.trained is not None
        # Several verdicts may complete the set: the fact is named by its candidate, not its cause.
        await step.state(fact, key=f"{step.run.attempt}:{step.run.trained.adapter}")
        return None

    async def attest_verdicts(step: Step) -> None:
        """Link by link, each in its place whoever else signs: the log takes the next one only."""
        for fact in await asyncio.to_thread(registry.attest, step.run):
            step.run = await step.runlog.decide(
                step.run.ref,
                partial(_next_link, fact),
                cause=step.trigger.id,
                key=fact.attests,
                reopen=True,  # the verdict that ended the run is attested too
            )

    @steps.on("attest", done=lambda run, _trigger: not awaits_attestation(run), after_the_end=True)
    async def attest(step: Step) -> None:
        await attest_verdicts(step)

    @steps.on("promote")
    async def promote(step: Step) -> AdapterPromoted:
        await attest_verdicts(step)
        return await asyncio.to_thread(registry.promote, step.run)

    @steps.on("roll-back", after_the_end=True)
    async def roll_back(step: Step) -> None:
        await asyncio.to_thread(registry.roll_back, step.trigger)

    @steps.command("withdraw")
    async def withdraw(ref: RunRef, message: Msg) -> None:
        """A person takes an adapter out of service, before or after its run has ended."""
        try:
            command = Withdraw.model_validate_json(message.data)
        except ValidationError as error:
            raise Malformed(
                f"{message.subject}: {error}", mend="send a kind and a reason (`sluice schema`)"
            ) from error
        run = await steps.runlog.load(ref)
        if run.registered is None or run.status == "withdrawn":
            log.warning("%s: nothing to withdraw (%s)", ref, run.status)
            return
        cause = f"{message.metadata.stream}:{message.metadata.sequence.stream}"
        fact = await asyncio.to_thread(
            registry.withdraw, run, command, cause, message.metadata.timestamp
        )
        # One withdrawal per adapter, however often the command is delivered or repeated.
        key = f"withdrawn:{run.registered.adapter_id}"
        await steps.runlog.append(ref, fact, cause=cause, key=key, reopen=True)


def _next_link(fact: VerdictAttested, run: Run) -> VerdictAttested | None:
    """The fact, if it is what the candidate's chain lacks next."""
    registered = run.registered
    if registered is None or registered.adapter_id != fact.adapter_id:
        return None
    return fact if len(attested(run)) == fact.index else None
