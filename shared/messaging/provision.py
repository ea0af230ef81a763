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
from nats.js.errors import APIError, NotFoundError

from contracts.topology import CONSUMERS, LEASES, STREAMS, Consumer, Stream, stream
from shared.errors import Misconfigured
from shared.messaging.leases import TTL_S

STREAM_NAME_IN_USE = 10058
"""The server's error code for a stream that exists with another configuration."""
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
    for row in STREAMS:
        config = stream_config(row, replicas)
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
    except APIError as error:
        if error.err_code != STREAM_NAME_IN_USE:
            raise
        found = (await jetstream.stream_info(f"KV_{LEASES}")).config
        await jetstream.update_stream(found.evolve(max_age=TTL_S, num_replicas=replicas))


async def check(jetstream: JetStreamContext, consumers: Iterable[Consumer]) -> None:
    """Raises Misconfigured if what a service works with is missing or is not as declared.

    Streams and the lease bucket are checked only for a service that consumes: it appends to RUN,
    buries in DEAD, and its first lease must not be the first to notice.
    """
    rows = tuple(consumers)
    if rows:
        for name in sorted({row.stream for row in rows} | {"RUN", "DEAD"}):
            await _check_stream(jetstream, stream(name))
        await _check_leases(jetstream)
    for row in rows:
        try:
            info = await jetstream.consumer_info(row.stream, row.durable)
        except NotFoundError as error:
            raise Misconfigured(
                f"consumer {row.durable} on stream {row.stream} does not exist", mend=MEND
            ) from error
        drift = _drift(row, info.config)
        if drift:
            raise Misconfigured(f"consumer {row.durable} has drifted: {drift}", mend=MEND)


async def _check_stream(jetstream: JetStreamContext, row: Stream) -> None:
    try:
        config = (await jetstream.stream_info(row.name)).config
    except NotFoundError as error:
        raise Misconfigured(f"stream {row.name} does not exist", mend=MEND) from error
    drift = _differences(
        {
            "subjects": (sorted(config.subjects or ()), sorted(row.subjects)),
            "storage": (StorageType(config.storage).value, row.storage),
            "max_age_s": (float(config.max_age or 0), row.max_age_s),
        }
    )
    if drift:
        raise Misconfigured(f"stream {row.name} has drifted: {drift}", mend=MEND)


async def _check_leases(jetstream: JetStreamContext) -> None:
    try:
        config = (await jetstream.stream_info(f"KV_{LEASES}")).config
    except NotFoundError as error:
        raise Misconfigured(f"bucket {LEASES} does not exist", mend=MEND) from error
    if drift := _differences({"ttl_s": (float(config.max_age or 0), TTL_S)}):
        raise Misconfigured(f"bucket {LEASES} has drifted: {drift}", mend=MEND)


def _differences(found: dict[str, tuple[Any, Any]]) -> str:
    return ", ".join(
        f"{name} is {has!r}, not {wants!r}" for name, (has, wants) in found.items() if has != wants
    )


def _drift(row: Consumer, actual: Any) -> str:
    filters = tuple(actual.filter_subjects or ([actual.filter_subject or ""]))
    return _differences(
        {
            "filters": (sorted(filters), sorted(row.filters)),
            "ack_wait_s": (float(actual.ack_wait or 0), row.ack_wait_s),
            "max_deliver": (actual.max_deliver, row.max_deliver),
            "max_ack_pending": (actual.max_ack_pending, row.max_ack_pending),
        }
    )
