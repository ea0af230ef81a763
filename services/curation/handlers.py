"""Curation's one step: governed rows in; a dataset snapshot, a wish for seeds, or a halt out."""

from __future__ import annotations

import asyncio

from services.curation.desk import Desk, Next
from services.curation.pipeline import Advance
from shared.messaging.steps import Step, Steps


def register(steps: Steps, desk: Desk) -> None:
    """Subscribe to training advice and to synthesized rows."""

    @steps.on("curate")
    async def curate(step: Step) -> Next:
        await step.progress("curation", "checking licences, redacting, removing duplicates")

        loop = asyncio.get_running_loop()

        def on_advance(now: Advance) -> None:
            said = f"{now.leg}: shard {now.done} of {now.shards}"
            loop.call_soon_threadsafe(step.tick, "curation", said, now.done, now.shards)

        return await asyncio.to_thread(desk.curate, step.run, on_advance)
