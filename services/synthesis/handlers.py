"""Synthesis' one step: curated seeds in, verified and tagged rows out."""

from __future__ import annotations

import asyncio

from contracts.synthesis import RowsSynthesized
from services.synthesis.generation import Advance
from services.synthesis.studio import Studio
from shared.messaging.steps import Step, Steps


def register(steps: Steps, studio: Studio) -> None:
    """Subscribe to wishes for synthetic rows."""

    @steps.on("synthesize")
    async def synthesize(step: Step) -> RowsSynthesized:
        loop = asyncio.get_running_loop()
        news: set[asyncio.Task[None]] = set()

        def on_advance(now: Advance) -> None:
            message = f"{now.accepted} of {now.wanted} rows from {now.asked} answers"
            report = step.progress("synthesis", message, now.accepted, now.wanted)
            task = loop.create_task(report)
            news.add(task)
            task.add_done_callback(news.discard)

        return await studio.synthesize(step.run, on_advance)
