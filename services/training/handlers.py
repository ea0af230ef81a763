"""Training's one step: a curated dataset becomes an adapter, or the run stops with a reason."""

from __future__ import annotations

import asyncio

from contracts.training import AdapterTrained, TrainingStopped
from services.training.workshop import Workshop
from shared.errors import TransientError
from shared.messaging.delivery import ServiceStops
from shared.messaging.steps import Step, Steps


def register(steps: Steps, workshop: Workshop) -> None:
    """Subscribe to curated datasets."""

    @steps.on("train", done=lambda run, _trigger: run.trained is not None)
    async def train(step: Step) -> AdapterTrained | TrainingStopped | None:
        order = await workshop.order(step.run)
        if isinstance(order, TrainingStopped):
            return order
        await step.state(order.started)
        leaving = asyncio.create_task(_cancel_when(steps.bus.stopping, step))
        try:
            ending = await workshop.train(order, step.report, step.cancelled)
        finally:
            leaving.cancel()
        if ending is None and steps.bus.stopping.is_set():
            raise ServiceStops("the service stops; another goes on from the checkpoint")
        if ending is None:  # cancelled: the checkpoint stays
            return None
        if isinstance(ending, TransientError):
            raise ending
        return ending


async def _cancel_when(stopping: asyncio.Event, step: Step) -> None:
    await stopping.wait()
    step.cancelled.set()
