"""Synthesis' one step: curated seeds in, verified and tagged rows out."""

from __future__ import annotations

from contracts.synthesis import RowsSynthesized
from services.synthesis.generation import Advance
from services.synthesis.studio import Studio
from shared.messaging.steps import Step, Steps


def register(steps: Steps, studio: Studio) -> None:
    """Subscribe to wishes for synthetic rows."""

    @steps.on("synthesize")
    async def synthesize(step: Step) -> RowsSynthesized:
        def on_advance(now: Advance) -> None:
            message = f"{now.accepted} of {now.wanted} rows from {now.asked} answers"
            step.tick("synthesis", message, now.accepted, now.wanted)

        return await studio.synthesize(step.run, on_advance)
