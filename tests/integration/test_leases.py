"""Leases on a real nats-server, in a bucket whose entries live for a second."""

from __future__ import annotations

import asyncio

import nats
import pytest
from nats.js.api import KeyValueConfig

from shared.errors import LeaseHeld, TransientError
from shared.messaging.leases import RENEW_EVERY_S, TTL_S, LeaseLost, Leases

KEY = "acme.r1.synthesis-synthesize"


@pytest.fixture
async def bucket(nats_server):
    connection = await nats.connect(nats_server.url)
    yield await connection.jetstream(timeout=2).create_key_value(
        KeyValueConfig(bucket="SHORT", ttl=1.0, history=1)
    )
    await connection.close()


async def test_a_held_lease_is_refused_to_others_until_it_is_released(bucket) -> None:
    lease = await Leases(bucket, "a").acquire(KEY)
    with pytest.raises(LeaseHeld):
        await Leases(bucket, "b").acquire(KEY)
    await Leases(bucket, "a").release(lease)
    assert (await Leases(bucket, "b").acquire(KEY)).holder == "b"


@pytest.mark.req("P3")
async def test_the_server_expires_the_lease_of_a_holder_that_died(bucket) -> None:
    await Leases(bucket, "dead").acquire(KEY)
    async with asyncio.timeout(5):
        while True:
            try:
                lease = await Leases(bucket, "heir").acquire(KEY)
            except LeaseHeld:
                await asyncio.sleep(0.1)
            else:
                break
    assert lease.holder == "heir"


async def test_renewing_keeps_a_lease_past_its_time(bucket) -> None:
    holder = Leases(bucket, "a")
    lease = await holder.acquire(KEY)
    for _ in range(6):
        await asyncio.sleep(0.4)
        await holder.renew(lease)
    with pytest.raises(LeaseHeld):
        await Leases(bucket, "b").acquire(KEY)


async def test_a_holder_that_stalled_cannot_renew_nor_release_its_heirs_lease(bucket) -> None:
    stalled = Leases(bucket, "stalled")
    old = await stalled.acquire(KEY)
    await asyncio.sleep(1.6)
    heir = await Leases(bucket, "heir").acquire(KEY)
    with pytest.raises(LeaseLost):
        await stalled.renew(old)
    await stalled.release(old)
    await Leases(bucket, "heir").renew(heir)


async def test_a_stalled_holder_cannot_bring_an_expired_lease_back(bucket) -> None:
    stalled = Leases(bucket, "stalled")
    lease = await stalled.acquire(KEY)
    await asyncio.sleep(1.6)
    with pytest.raises(LeaseLost):
        await stalled.renew(lease)


async def test_a_broker_that_is_away_is_not_a_lost_lease(bucket, nats_server) -> None:
    holder = Leases(bucket, "a")
    lease = await holder.acquire(KEY)
    nats_server.kill()
    with pytest.raises(TransientError) as caught:
        await holder.renew(lease)
    assert not isinstance(caught.value, LeaseLost)


def test_a_holder_may_miss_two_renewals() -> None:
    assert RENEW_EVERY_S * 3 < TTL_S
