"""Following a stream without owning a durable consumer: for projections and watchers.

A tail replays what is there after a sequence, then follows live. It keeps only that sequence, so
after a broker restart it makes a new ephemeral consumer and goes on where it was: nothing is
skipped and nothing is given twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress

import nats.errors
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy as ConsumerAckPolicy  # noqa: TID251 - the server's own enum
from nats.js.api import ConsumerConfig, DeliverPolicy
from nats.js.errors import Error as JetStreamError

log = logging.getLogger("sluice.tail")

BATCH = 256
WAIT_S = 1.0
IDLE_TTL_S = 60.0


async def tail(
    jetstream: JetStreamContext,
    stream: str,
    *filters: str,
    after: int = 0,
    caught_up: asyncio.Event | None = None,
) -> AsyncIterator[Msg]:
    """Messages of `stream` that match `filters` with a sequence above `after`, for ever.

    `caught_up` is set as soon as everything that was there has been given.
    """
    while True:
        try:
            config = ConsumerConfig(
                ack_policy=ConsumerAckPolicy.NONE,
                deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=after + 1,
                filter_subjects=list(filters) or None,
                inactive_threshold=IDLE_TTL_S,
                mem_storage=True,
                num_replicas=1,
            )
            pull = await jetstream.pull_subscribe(filters[0], stream=stream, config=config)
            pending = (await pull.consumer_info()).num_pending
            if caught_up is not None and not pending:
                caught_up.set()
            try:
                while True:
                    messages: list[Msg] = []
                    with suppress(TimeoutError, nats.errors.TimeoutError):
                        messages = await pull.fetch(BATCH, timeout=WAIT_S)
                    for message in messages:
                        sequence = message.metadata.sequence.stream
                        if sequence <= after:
                            continue
                        after = sequence
                        yield message
                    if caught_up is not None and (
                        not messages or not messages[-1].metadata.num_pending
                    ):
                        caught_up.set()
                    if not messages:
                        await pull.consumer_info()  # raises if a restart forgot the consumer
            finally:
                with suppress(Exception):
                    await pull.unsubscribe()
        except (nats.errors.Error, JetStreamError, TimeoutError) as error:
            log.warning("tail of %s interrupted: %r; resuming after %d", stream, error, after)
            await asyncio.sleep(0.5)
