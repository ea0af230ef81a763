"""The registry's steps: a candidate's card, its promotion, and the history of its withdrawal."""

from __future__ import annotations

import asyncio

from contracts.registry import AdapterPromoted, CandidateRegistered, RegistrationRefused
from services.registry.registry import Registry
from shared.messaging.steps import Step, Steps


def register(steps: Steps, registry: Registry) -> None:
    """Subscribe to gate verdicts and to the rollout's end."""

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

    @steps.on("withdraw", after_the_end=True)
    async def withdraw(step: Step) -> None:
        await asyncio.to_thread(registry.roll_back, step.trigger)
