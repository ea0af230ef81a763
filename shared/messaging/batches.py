"""Consuming many small messages at a time, for folds that one process makes in memory.

A step takes its messages one by one because each is work. An outcome is a few microseconds of
arithmetic, so fetching it alone costs a hundred times what it is worth. Here a batch is fetched,
handled in order and acknowledged as a whole once everything that follows from it is published.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import nats.errors
from nats.aio.msg import Msg
from nats.js.errors import Error as JetStreamError

from contracts.topology import Consumer
from shared.errors import TransientError
from shared.messaging.broker import Bus
from shared.messaging.cancellation import heed_cancellation
from shared.messaging.delivery import backoff_s, bury

log = logging.getLogger("sluice.batches")

SIZE = 512
IDLE_S = 0.5
_BROKER_AWAY = (nats.errors.Error, JetStreamError, TransientError, TimeoutError, OSError)

Refused = Sequence[tuple[Msg, Exception]]
"""Messages of a batch that can never be handled, and why."""
Handle = Callable[[Sequence[Msg]], Awaitable[Refused]]


class Batches:
    """Every message of one durable consumer goes through `handle`, in batches.

    `handle` may see a message again and must then count it once. When it raises an error of the
    broker the same batch is handled again after a growing delay; nothing is acknowledged before.
    """

    def __init__(self, bus: Bus, consumer: Consumer, handle: Handle, *, size: int = SIZE) -> None:
        self._bus = bus
        self._consumer = consumer
        self._handle = handle
        self._size = size
        bus.expects(consumer)

    @asynccontextmanager
    async def consuming(self) -> AsyncIterator[None]:
        """Consume beside whatever else the service does, until the service stops."""
        work = asyncio.create_task(self._consume())
        try:
            yield
        finally:
            self._bus.stopping.set()
            await work

    async def _consume(self) -> None:
        subscription: Any = None
        while not self._bus.stopping.is_set():
            heed_cancellation()
            try:
                if subscription is None:
                    subscription = await self._bus.jetstream.pull_subscribe_bind(
                        self._consumer.durable, stream=self._consumer.stream
                    )
                batch = await subscription.fetch(self._size, timeout=IDLE_S)
            except TimeoutError:
                continue
            except _BROKER_AWAY as error:
                log.warning("%s: %r; opening it again", self._consumer.durable, error)
                subscription = None
                await asyncio.sleep(IDLE_S)
                continue
            await self._finish(batch)
        if subscription is not None:
            await subscription.unsubscribe()

    async def _finish(self, batch: Sequence[Msg]) -> None:
        """Handle and acknowledge a batch; leave it to redelivery if the service stops first."""
        tries = 0
        while not (tries and self._bus.stopping.is_set()):
            tries += 1
            try:
                for message, error in await self._handle(batch):
                    log.error("%s: buried: %s", message.subject, error)
                    await bury(self._bus.jetstream, self._bus.service, message, error)
                for message in batch:
                    await message.ack()
                return
            except _BROKER_AWAY as error:
                log.warning("%s: %r; again", self._consumer.durable, error)
                await asyncio.sleep(backoff_s(tries))
