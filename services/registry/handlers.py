"""The registry's steps: a candidate's card, its promotion, its withdrawal, and their history."""

from __future__ import annotations

import asyncio
import logging

from nats.aio.msg import Msg
from pydantic import ValidationError

from contracts.commands import Withdraw
from contracts.registry import AdapterPromoted, CandidateRegistered, RegistrationRefused
from contracts.subjects import RunRef
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

    @steps.on("promote")
    async def promote(step: Step) -> AdapterPromoted:
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
