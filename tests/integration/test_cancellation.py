"""A loop whose library swallows a cancellation still ends."""

from __future__ import annotations

import asyncio

from shared.messaging.cancellation import heed_cancellation


async def test_a_swallowed_cancellation_is_heeded_in_the_next_round() -> None:
    rounds = 0

    async def loop() -> None:
        nonlocal rounds
        while True:
            heed_cancellation()
            rounds += 1
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                continue  # what some libraries do

    task = asyncio.create_task(loop())
    await asyncio.sleep(0.01)
    task.cancel()
    async with asyncio.timeout(2):
        await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    assert rounds == 1
