"""The provisioner: the only creator of streams, consumers and buckets.

`provision` makes the server match `contracts.topology`; it is safe to run again. `check` is what a
service does at start: compare and refuse, never change, because NATS and FastStream both accept a
drifted consumer in silence.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nats.js import JetStreamContext
from nats.js.api import AckPolicy as ConsumerAckPolicy  # noqa: TID251 - the server's
from nats.js.api import (
    ConsumerConfig,
    KeyValueConfig,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)
from nats.js.errors import APIError, BadRequestError, NotFoundError

from contracts.topology import CONSUMERS, LEASES, STREAMS, Consumer, Stream
from shared.errors import Misconfigured
from shared.messaging.leases import TTL_S

MEND = "run `sluice provision` against this server with this version"


def stream_config(row: Stream, replicas: int) -> StreamConfig:
    return StreamConfig(
        name=row.name,
        subjects=list(row.subjects),
        description=row.purpose,
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE if row.storage == "file" else StorageType.MEMORY,
        max_age=row.max_age_s,
        max_bytes=row.max_bytes,
        num_replicas=replicas,
        allow_direct=True,
        duplicate_window=120.0,
    )


def consumer_config(row: Consumer) -> ConsumerConfig:
    single = len(row.filters) == 1
    return ConsumerConfig(
        name=row.durable,
        durable_name=row.durable,
        ack_policy=ConsumerAckPolicy.EXPLICIT,
        ack_wait=row.ack_wait_s,
        max_deliver=row.max_deliver,
        max_ack_pending=row.max_ack_pending,
        filter_subject=row.filters[0] if single else None,
        filter_subjects=None if single else list(row.filters),
    )


async def provision(jetstream: JetStreamContext, *, replicas: int = 1) -> None:
    """Create or update every stream, consumer and bucket of the topology."""
    for stream in STREAMS:
        config = stream_config(stream, replicas)
        try:
            await jetstream.update_stream(config)
        except NotFoundError:
            await jetstream.add_stream(config)
    for consumer in CONSUMERS:
        await jetstream.add_consumer(consumer.stream, consumer_config(consumer))
    try:
        await jetstream.create_key_value(
            KeyValueConfig(bucket=LEASES, ttl=TTL_S, history=1, replicas=replicas)
        )
    except (BadRequestError, APIError) as error:
        if getattr(error, "err_code", None) != 10058:  # already there, with another configuration
            raise


async def check(jetstream: JetStreamContext, consumers: Iterable[Consumer]) -> None:
    """Raises Misconfigured if a consumer is missing or is not what the topology says."""
    for row in consumers:
        try:
            info = await jetstream.consumer_info(row.stream, row.durable)
        except NotFoundError as error:
            raise Misconfigured(
                f"consumer {row.durable} on stream {row.stream} does not exist", mend=MEND
            ) from error
        drift = _drift(row, info.config)
        if drift:
            raise Misconfigured(f"consumer {row.durable} has drifted: {drift}", mend=MEND)


def _drift(row: Consumer, actual: Any) -> str:
    filters = tuple(actual.filter_subjects or ([actual.filter_subject or ""]))
    found = {
        "filters": (sorted(filters), sorted(row.filters)),
        "ack_wait_s": (float(actual.ack_wait or 0), row.ack_wait_s),
        "max_deliver": (actual.max_deliver, row.max_deliver),
        "max_ack_pending": (actual.max_ack_pending, row.max_ack_pending),
    }
    return ", ".join(
        f"{name} is {has!r}, not {wants!r}" for name, (has, wants) in found.items() if has != wants
    )
