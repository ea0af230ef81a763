"""Reading a stream from a sequence on, then live: for folds that anyone may recompute.

A tail holds no durable state: its position is the caller's, so whoever starts again from the same
sequence sees the same messages in the same order. Nothing is acknowledged and nothing is lost to
anyone else. If the server forgets the ephemeral consumer (a broker restart), the tail opens another
one where it was.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from typing import Any

import nats.errors
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy as ConsumerAckPolicy  # noqa: TID251 - the server's
from nats.js.api import ConsumerConfig, DeliverPolicy
from nats.js.errors import Error as JetStreamError

from shared.errors import TransientError
from shared.messaging.cancellation import heed_cancellation

log = logging.getLogger("sluice.tail")

BATCH = 256
FORGOTTEN_AFTER_S = 60.0
ANSWER_S = 5.0
_QUIET_BEFORE_CHECK = 5
_BROKER_AWAY = (nats.errors.Error, JetStreamError, TimeoutError, OSError)


def sequence_of(message: Msg) -> int:
    """The message's sequence in its stream."""
    return int(message.metadata.sequence.stream)


async def last_sequence(jetstream: JetStreamContext, stream: str) -> int:
    """The sequence of the newest message of `stream`, 0 if it is empty. Raises TransientError."""
    try:
        return int((await jetstream.stream_info(stream)).state.last_seq)
    except _BROKER_AWAY as error:
        raise TransientError(f"stream {stream} does not answer: {error!r}") from error


async def tail(
    jetstream: JetStreamContext, stream: str, *filters: str, since: int, idle_s: float = 1.0
) -> AsyncGenerator[list[Msg], None]:
    """Batches of the messages on any of `filters` from sequence `since` on, in order, without end.

    An empty batch says that nothing came for `idle_s`, or that the broker is away just now.
    """
    position = max(1, since)
    subscription: Any = None
    quiet = 0
    try:
        while True:
            heed_cancellation()
            batch: list[Msg] = []
            try:
                if subscription is None:
                    subscription = await _open(jetstream, stream, filters, position)
                elif quiet >= _QUIET_BEFORE_CHECK:
                    await subscription.consumer_info()
                    quiet = 0
                batch = await subscription.fetch(BATCH, timeout=idle_s)
            except TimeoutError:  # the client raises its own and the standard one
                pass
            except _BROKER_AWAY as error:
                heed_cancellation()
                log.warning("%s: %r; opening it again at %d", filters[0], error, position)
                await _close(jetstream, stream, subscription)
                subscription = None
                await asyncio.sleep(idle_s)
            quiet = 0 if batch else quiet + 1
            if batch:
                position = sequence_of(batch[-1]) + 1
            yield batch
    finally:
        await _close(jetstream, stream, subscription)


async def history(
    jetstream: JetStreamContext, stream: str, subject: str, *, since: int = 1
) -> list[Msg]:
    """The messages on `subject` from `since` up to the stream's present end, all of them.

    Raises:
        TransientError: the broker went away meanwhile; a part of a history would mislead.
    """
    found: list[Msg] = []
    if await last_sequence(jetstream, stream) < since:
        return found
    subscription: Any = None
    try:
        subscription = await _open(jetstream, stream, (subject,), max(1, since))
        there = int((await subscription.consumer_info()).num_pending or 0)
        while len(found) < there:
            found += await subscription.fetch(min(BATCH, there - len(found)), timeout=ANSWER_S)
    except _BROKER_AWAY as error:
        heed_cancellation()
        raise TransientError(f"{subject} does not answer: {error!r}") from error
    finally:
        await _close(jetstream, stream, subscription)
    return found


async def _open(
    jetstream: JetStreamContext, stream: str, filters: Sequence[str], position: int
) -> Any:
    return await jetstream.pull_subscribe(
        filters[0],
        stream=stream,
        config=ConsumerConfig(
            filter_subjects=list(filters) if len(filters) > 1 else None,
            ack_policy=ConsumerAckPolicy.NONE,
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=position,
            inactive_threshold=FORGOTTEN_AFTER_S,
            mem_storage=True,
        ),
    )


async def _close(jetstream: JetStreamContext, stream: str, subscription: Any) -> None:
    if subscription is None:
        return
    name = None
    with suppress(*_BROKER_AWAY):
        name = (await subscription.consumer_info()).name
    with suppress(*_BROKER_AWAY):  # also of a consumer that is gone, or it delays the client's end
        await subscription.unsubscribe()
    if name is not None:
        with suppress(*_BROKER_AWAY):
            await jetstream.delete_consumer(stream, name)
