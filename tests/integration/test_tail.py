"""Tails on a real nats-server."""

from __future__ import annotations

import asyncio

import nats

from contracts.diagnosis import RunCancelled
from contracts.subjects import RunRef
from shared.errors import TransientError
from shared.messaging.provision import provision
from shared.messaging.runlog import RunLog
from shared.messaging.tail import tail


async def test_a_tail_replays_follows_and_survives_a_broker_restart(nats_server) -> None:
    connection = await nats.connect(
        nats_server.url, max_reconnect_attempts=-1, reconnect_time_wait=0.1
    )
    js = connection.jetstream()
    await provision(js)
    log = RunLog(js)
    for n in range(5):
        await log.append(RunRef("acme", f"r{n}"), RunCancelled(), cause="c")
    seen: list[str] = []

    async def follow() -> None:
        async for batch in tail(js, "RUN", "sluice.v1.run.>", since=1, idle_s=0.2):
            seen.extend(message.subject.split(".")[4] for message in batch)

    task = asyncio.ensure_future(follow())
    async with asyncio.timeout(5):
        while len(seen) < 5:
            await asyncio.sleep(0.05)
    assert seen == [f"r{n}" for n in range(5)]

    nats_server.kill()
    await nats_server.start()
    async with asyncio.timeout(20):
        while True:
            try:
                await log.append(RunRef("acme", "after"), RunCancelled(), cause="c")
                break
            except TransientError:
                await asyncio.sleep(0.2)
        while "after" not in seen:
            await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert seen == [*(f"r{n}" for n in range(5)), "after"]
    await connection.close()
