"""Reading a stream from a sequence on, then live: for folds that anyone may recompute.

A tail holds no state on the server: it asks for the next messages of a subject from its own
position (direct get, in batches), so whoever starts again from the same sequence sees the same
messages in the same order. Nothing is acknowledged and nothing is lost to anyone else. Reading
this way needs no right to create a consumer, which is a right to have messages delivered anywhere.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import nats.errors
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.errors import Error as JetStreamError

from shared.errors import TransientError
from shared.messaging.cancellation import heed_cancellation

log = logging.getLogger("sluice.tail")

BATCH = 256
ANSWER_S = 5.0
FIRST_LOOK_S = 0.02
LONGEST_LOOK_S = 0.25
"""A quiet tail looks less and less often, down to four times a second."""
_BROKER_AWAY = (nats.errors.Error, JetStreamError, TimeoutError, OSError)
_END_OF_BATCH = "204"
_NOTHING_THERE = "404"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A message as a stream holds it."""

    subject: str
    seq: int
    headers: dict[str, str]
    data: bytes
    at: datetime


def sequence_of(message: Stored | Msg) -> int:
    """The message's sequence in its stream."""
    if isinstance(message, Stored):
        return message.seq
    return int(message.metadata.sequence.stream)


async def last_sequence(jetstream: JetStreamContext, stream: str) -> int:
    """The sequence of the newest message of `stream`, 0 if it is empty. Raises TransientError."""
    try:
        return int((await jetstream.stream_info(stream)).state.last_seq)
    except _BROKER_AWAY as error:
        raise TransientError(f"stream {stream} does not answer: {error!r}") from error


async def tail(
    jetstream: JetStreamContext, stream: str, subject: str, *, since: int, idle_s: float = 1.0
) -> AsyncGenerator[list[Stored], None]:
    """Batches of the messages on `subject` from sequence `since` on, in order, without end.

    An empty batch says that nothing came for `idle_s`, or that the broker is away just now.
    """
    position = max(1, since)
    clock = asyncio.get_running_loop().time
    heard, look_s = clock(), FIRST_LOOK_S
    while True:
        heed_cancellation()
        batch: list[Stored] = []
        try:
            batch = await read(jetstream, stream, subject, position)
        except _BROKER_AWAY as error:
            heed_cancellation()
            log.warning("%s: %r; asking again from %d", subject, error, position)
        if batch:
            position = batch[-1].seq + 1
            heard, look_s = clock(), FIRST_LOOK_S
            yield batch
            continue
        await asyncio.sleep(min(look_s, idle_s))
        look_s = min(look_s * 1.5, LONGEST_LOOK_S)
        if clock() - heard >= idle_s:
            heard = clock()
            yield batch


async def history(
    jetstream: JetStreamContext, stream: str, subject: str, *, since: int = 1
) -> list[Stored]:
    """The messages on `subject` from `since` up to the stream's present end, all of them.

    Raises:
        TransientError: the broker went away meanwhile; a part of a history would mislead.
    """
    found: list[Stored] = []
    end = await last_sequence(jetstream, stream)
    position = max(1, since)
    try:
        while position <= end:
            batch = await read(jetstream, stream, subject, position)
            if not batch:
                break
            found += [message for message in batch if message.seq <= end]
            position = batch[-1].seq + 1
    except _BROKER_AWAY as error:
        heed_cancellation()
        raise TransientError(f"{subject} does not answer: {error!r}") from error
    return found


async def read(
    jetstream: JetStreamContext, stream: str, subject: str, position: int, *, batch: int = BATCH
) -> list[Stored]:
    """The next messages on `subject` from sequence `position` on, at most `batch` of them.

    Raises:
        nats.errors.Error, JetStreamError, TimeoutError, OSError: the broker does not answer, or
            stopped in the middle.
    """
    connection = jetstream._nc
    inbox = connection.new_inbox()
    answers = await connection.subscribe(inbox)
    ask = {"seq": position, "next_by_subj": subject, "batch": batch}
    try:
        await connection.publish(
            f"{jetstream._prefix}.DIRECT.GET.{stream}", json.dumps(ask).encode(), reply=inbox
        )
        found: list[Stored] = []
        while True:
            message = await answers.next_msg(timeout=ANSWER_S)
            status = (message.headers or {}).get("Status")
            if status in (_END_OF_BATCH, _NOTHING_THERE):
                return found
            if status is not None:
                raise JetStreamError(f"stream {stream} answers {status}")
            found.append(_stored(message))
    finally:
        await _forget(answers)


async def _forget(subscription: Any) -> None:
    """Unsubscribe. A connection that is down or closed forgets by itself."""
    try:
        await subscription.unsubscribe()
    except (nats.errors.Error, OSError):
        return


def _stored(message: Msg) -> Stored:
    headers = dict(message.headers or {})
    at = headers["Nats-Time-Stamp"].removesuffix("Z")[:26]  # Python reads microseconds
    return Stored(
        subject=headers["Nats-Subject"],
        seq=int(headers["Nats-Sequence"]),
        headers={k: v for k, v in headers.items() if k not in _OF_THE_ANSWER},
        data=message.data,
        at=datetime.fromisoformat(at).replace(tzinfo=UTC),
    )


_OF_THE_ANSWER = {
    "Nats-Stream",
    "Nats-Subject",
    "Nats-Sequence",
    "Nats-Time-Stamp",
    "Nats-Num-Pending",
    "Nats-Last-Sequence",
}
