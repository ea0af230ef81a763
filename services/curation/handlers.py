"""Curation's one step: governed rows in; a dataset snapshot, a wish for seeds, or a halt out."""

from __future__ import annotations

import asyncio
import threading

from services.curation.desk import Desk, Next
from services.curation.pipeline import Advance
from shared.messaging.steps import Step, Steps


class _Abandoned(Exception):
    """Nobody waits for the dataset any more; the shards that are committed stay."""


def register(steps: Steps, desk: Desk) -> None:
    """Subscribe to training advice and to synthesized rows."""

    @steps.on("curate")
    async def curate(step: Step) -> Next | None:
        await step.progress("curation", "checking licences, redacting, removing duplicates")

        loop, left = asyncio.get_running_loop(), threading.Event()

        def on_advance(now: Advance) -> None:
            if left.is_set() or step.cancelled.is_set():
                raise _Abandoned
            said = f"{now.leg}: shard {now.done} of {now.shards}"
            loop.call_soon_threadsafe(step.tick, "curation", said, now.done, now.shards)

        try:
            return await asyncio.to_thread(desk.curate, step.run, on_advance)
        except _Abandoned:  # the run was cancelled
            return None
        finally:
            left.set()
