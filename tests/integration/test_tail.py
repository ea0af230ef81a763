"""A tail reads in order, live, and finds its place again after the broker was away."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import nats
import pytest

from shared.errors import TransientError
from shared.messaging import tail as tail_module
from shared.messaging.provision import provision
from shared.messaging.tail import history, last_sequence, tail

SUBJECT = "sluice.v1.telemetry.acme.assistant"


@pytest.fixture
async def jetstream(nats_server):
    async def quiet(_: Exception) -> None: ...

    connection = await nats.connect(
        nats_server.url, max_reconnect_attempts=-1, reconnect_time_wait=0.1, error_cb=quiet
    )
    js = connection.jetstream()
    await provision(js)
    yield js
    await connection.close()


async def publish(jetstream, *bodies: int) -> None:
    for body in bodies:
        await jetstream.publish(SUBJECT, str(body).encode(), stream="TELEMETRY")


async def read(reader, count: int, found: list[int]) -> None:
    async with asyncio.timeout(30):
        async for batch in reader:
            found += [int(message.data) for message in batch]
            if len(found) >= count:
                return


@pytest.mark.req("P3")
async def test_a_tail_survives_the_brokers_death_without_loss_or_repetition(
    jetstream, nats_server
) -> None:
    await publish(jetstream, *range(300))
    found: list[int] = []
    async with aclosing(tail(jetstream, "TELEMETRY", SUBJECT, since=1, idle_s=0.2)) as reader:
        await read(reader, 300, found)
        nats_server.kill()
        await nats_server.start()
        async with asyncio.timeout(20):
            while True:
                try:
                    await publish(jetstream, *range(300, 320))
                    break
                except Exception:
                    await asyncio.sleep(0.1)
        await read(reader, 320, found)
    assert found == list(range(320))


async def test_a_tail_begins_where_it_is_told_and_leaves_no_consumer(jetstream) -> None:
    await publish(jetstream, *range(10))
    found: list[int] = []
    async with aclosing(tail(jetstream, "TELEMETRY", SUBJECT, since=6, idle_s=0.2)) as reader:
        await read(reader, 5, found)
    assert found == [5, 6, 7, 8, 9]
    names = {c.name for c in await jetstream.consumers_info("TELEMETRY")}
    assert names == {"monitoring-outcomes"}


async def test_history_ends_at_the_present(jetstream) -> None:
    assert await history(jetstream, "TELEMETRY", SUBJECT) == []
    await publish(jetstream, *range(700))
    await jetstream.publish("sluice.v1.telemetry.other.d", b"-1", stream="TELEMETRY")
    assert await last_sequence(jetstream, "TELEMETRY") == 701
    assert [int(m.data) for m in await history(jetstream, "TELEMETRY", SUBJECT)] == list(range(700))


@pytest.mark.req("P3")
async def test_half_a_history_is_an_error_and_never_an_answer(
    jetstream, nats_server, monkeypatch
) -> None:
    await publish(jetstream, *range(10))
    read = tail_module.read

    async def read_and_lose_the_broker(*arguments):
        part = await read(*arguments, batch=4)
        nats_server.kill()
        return part

    monkeypatch.setattr(tail_module, "read", read_and_lose_the_broker)
    monkeypatch.setattr(tail_module, "ANSWER_S", 0.5)
    hasty = jetstream._nc.jetstream(timeout=0.5)
    with pytest.raises(TransientError):
        await history(hasty, "TELEMETRY", SUBJECT)
    await nats_server.start()
    async with asyncio.timeout(10):
        while not jetstream._nc.is_connected:
            await asyncio.sleep(0.05)
