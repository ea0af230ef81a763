"""Floods: malformed events among good ones, and many writers on one log."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter

import nats
import pytest

from contracts import subjects
from contracts.alerts import Alert
from contracts.subjects import RunRef
from contracts.synthesis import RowsSynthesized
from contracts.telemetry import Outcome
from services.monitoring.app import create_app
from shared.messaging.provision import provision
from shared.messaging.runlog import RunLog
from shared.messaging.tail import history

pytestmark = pytest.mark.timeout(900)
GOOD = 100
AT_ONCE = 200


@pytest.fixture
async def jetstream(nats_server):
    connection = await nats.connect(nats_server.url)
    js = connection.jetstream(timeout=30)
    await provision(js)
    yield js
    await connection.close()


def malformed(rng: random.Random, number: int) -> bytes:
    """Something that is no outcome, in one of the ways that happen."""
    fields = outcome(number).model_dump()
    kind = rng.randrange(6)
    if kind == 0:
        return rng.randbytes(rng.randint(0, 400))
    if kind == 1:
        return b"[" * rng.randint(1, 5000)
    if kind == 2:
        return json.dumps([fields]).encode()
    if kind == 3:
        return json.dumps({**fields, rng.choice(list(fields)): {"not": "this"}}).encode()
    if kind == 4:
        del fields[rng.choice(["tenant", "arm", "model", "at", "latency_ms"])]
        return json.dumps(fields).encode()
    return json.dumps({**fields, "surprise": "x" * rng.randint(1, 50_000)}).encode()


def outcome(number: int) -> Outcome:
    return Outcome(
        request_id=f"r{number}",
        tenant="acme",
        deployment="assistant",
        arm="stable",
        model="base",
        at=float(number),
        latency_ms=1.0,
        task_success=False,
    )


@pytest.mark.req("P3")
async def test_malformed_events_are_buried_with_their_reason_and_good_ones_are_processed(
    jetstream, settings, seed: int, long: bool
) -> None:
    rng = random.Random(seed)
    bad = 10_000 if long else 400
    bodies = [malformed(rng, n) for n in range(bad)]
    bodies += [outcome(bad + n).model_dump_json().encode() for n in range(GOOD)]
    rng.shuffle(bodies)
    subject = subjects.telemetry("acme", "assistant")
    slots = asyncio.Semaphore(AT_ONCE)

    async def publish(body: bytes) -> None:
        async with slots:
            await jetstream.publish(subject, body, stream="TELEMETRY", timeout=30)

    app = create_app(settings)
    async with app.running():
        await asyncio.gather(*map(publish, bodies))
        async with asyncio.timeout(600):
            while (
                await jetstream.consumer_info("TELEMETRY", "monitoring-outcomes")
            ).ack_floor.stream_seq < len(bodies):
                await asyncio.sleep(0.1)
        assert app.status() == {"firing": 1}  # it is up, and has seen all hundred
    dead = await history(jetstream, "DEAD", subjects.dead("monitoring"))
    assert Counter(m.headers["sluice-dead-sequence"] for m in dead).most_common(1)[0][1] == 1
    assert len(dead) == bad
    assert all(message.headers["sluice-dead-reason"] for message in dead)
    assert all(message.headers["sluice-dead-mend"] for message in dead)
    (alert,) = await history(jetstream, "ALERTS", "sluice.v1.alert.>")
    assert Alert.model_validate_json(alert.data).n == GOOD


@pytest.mark.req("P3")
async def test_every_version_of_a_log_has_one_writer_and_replay_gives_the_same_state(
    jetstream, seed: int, long: bool
) -> None:
    rng = random.Random(seed)
    writers = 10_000 if long else 300
    runs = [RunRef("acme", f"r{n}") for n in range(max(1, writers // 20))]
    slots = asyncio.Semaphore(AT_ONCE)

    async def append(number: int) -> None:
        fact = RowsSynthesized(
            rows="sha256:" + "0" * 64, requested=number, accepted=0, distinct_2=0.0
        )
        async with slots:
            await RunLog(jetstream).append(rng.choice(runs), fact, cause=f"cause-{number}")

    await asyncio.gather(*map(append, range(writers)))
    loaded = [await RunLog(jetstream).load(ref) for ref in runs]
    assert sum(len(run.log) for run in loaded) == writers
    for run in loaded:
        sequences = [record.seq for record in run.log]
        assert sequences == sorted(set(sequences))
        assert await RunLog(jetstream).load(run.ref) == run
