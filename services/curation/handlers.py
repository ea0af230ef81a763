"""Curation's one step: governed rows in; a dataset snapshot, a wish for seeds, or a halt out."""

from __future__ import annotations

import asyncio

from services.curation.desk import Desk, Next
from shared.messaging.steps import Step, Steps


def register(steps: Steps, desk: Desk) -> None:
    """Subscribe to training advice and to synthesized rows."""

    @steps.on("curate")
    async def curate(step: Step) -> Next:
        await step.progress("curation", "checking licences, redacting, removing duplicates")
        return await asyncio.to_thread(desk.curate, step.run)
