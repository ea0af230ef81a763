"""Monitoring on a real nats-server: fires once, resolves once, survives restarts."""

from __future__ import annotations

import asyncio

import nats
import pytest

from contracts import subjects
from contracts.alerts import Alert
from contracts.commands import Withdraw
from contracts.telemetry import Feedback, Outcome
from services.monitoring.alerts import Monitor
from services.monitoring.app import create_app
from services.monitoring.rules import load_rules
from shared.messaging.provision import provision
from shared.messaging.tail import history


@pytest.fixture
async def jetstream(nats_server):
    connection = await nats.connect(nats_server.url)
    js = connection.jetstream()
    await provision(js)
    yield js
    await connection.close()


def outcomes(*verdicts: bool, first: int) -> list[Outcome]:
    return [
        Outcome(
            request_id=f"r{first + i}",
            tenant="acme",
            deployment="assistant",
            arm="stable",
            model="base",
            at=float(first + i),
            latency_ms=90.0,
            task_success=verdict,
            schema_valid=True,
        )
        for i, verdict in enumerate(verdicts)
    ]


async def publish(jetstream, some: list[Outcome]) -> None:
    for outcome in some:
        await jetstream.publish(
            subjects.telemetry("acme", "assistant"),
            outcome.model_dump_json().encode(),
            stream="TELEMETRY",
        )


async def consumed(jetstream, timeout_s: float = 30.0) -> None:
    """Until every outcome has been acknowledged."""
    async with asyncio.timeout(timeout_s):
        while True:
            info = await jetstream.consumer_info("TELEMETRY", "monitoring-outcomes")
            if info.num_pending == 0 and info.num_ack_pending == 0:
                return
            await asyncio.sleep(0.05)


async def alerts(jetstream) -> list[Alert]:
    found = await history(jetstream, "ALERTS", "sluice.v1.alert.acme.assistant.task_success")
    return [Alert.model_validate_json(m.data) for m in found]


@pytest.mark.req("M1")
@pytest.mark.req("M16")
async def test_an_incident_survives_restarts_and_is_told_once(jetstream, settings) -> None:
    parts = [
        outcomes(*([True] * 80), first=0),
        outcomes(*([True] * 20), *([False] * 12), first=80),
        outcomes(*([False] * 5), first=112),
        outcomes(*([True] * 120), first=117),
    ]
    counts = []
    for part in parts:
        async with create_app(settings).running():
            await publish(jetstream, part)
            await publish(jetstream, part[-3:])  # delivered again
            await consumed(jetstream)
        counts.append([a.state for a in await alerts(jetstream)])
    assert counts == [[], ["firing"], ["firing"], ["firing", "resolved"]]
    fired, resolved = await alerts(jetstream)
    assert fired.id == resolved.id
    assert (fired.value, fired.evidence[0]) == (0.89, "r110")


@pytest.mark.req("M16")
async def test_malformed_telemetry_is_buried_and_the_rest_is_watched(jetstream, settings) -> None:
    async with create_app(settings).running():
        await jetstream.publish("sluice.v1.telemetry.acme.assistant", b"{", stream="TELEMETRY")
        await publish(jetstream, outcomes(*([False] * 100), first=0))
        await consumed(jetstream)
    assert [a.state for a in await alerts(jetstream)] == ["firing"]
    assert (await jetstream.stream_info("DEAD")).state.messages == 1


@pytest.mark.req("M12")
@pytest.mark.req("H11")
async def test_a_confirmed_incident_asks_for_the_withdrawal_and_says_so(
    jetstream, settings
) -> None:
    incident = Feedback(
        request_id="r1",
        tenant="acme",
        deployment="assistant",
        model="tiny-v1",
        run="run-1",
        kind="safety_incident",
        at=1.0,
    )
    async with create_app(settings).running():
        for _ in range(2):
            await jetstream.publish(
                subjects.feedback("acme", "assistant"),
                incident.model_dump_json().encode(),
                stream="TELEMETRY",
            )
        await consumed(jetstream)
    found = await history(jetstream, "JOBS", subjects.command("acme", "run-1", "withdraw"))
    (command,) = [Withdraw.model_validate_json(message.data) for message in found]
    assert command.kind == "safety_override"
    assert "r1" in command.reason
    (message,) = await history(jetstream, "ALERTS", "sluice.v1.alert.acme.assistant.>")
    alert = Alert.model_validate_json(message.data)
    assert (alert.metric, alert.taken, alert.severity) == (
        "safety_incidents",
        "withdraw",
        "critical",
    )


async def test_the_reported_status_counts_open_incidents(jetstream, settings) -> None:
    app = create_app(settings)
    async with app.running():
        await publish(jetstream, outcomes(*([False] * 100), first=0))
        await consumed(jetstream)
        assert app.status() == {"firing": 1}


@pytest.mark.req("M16")
async def test_replaying_the_telemetry_log_gives_the_published_alerts(jetstream, settings) -> None:
    stream = outcomes(*([True] * 100), *([False] * 20), *([True] * 200), *([False] * 20), first=0)
    async with create_app(settings).running():
        await publish(jetstream, stream)
        await consumed(jetstream)
    log = await history(jetstream, "TELEMETRY", "sluice.v1.telemetry.>")
    monitor = Monitor(load_rules())
    replayed = [
        notice.alert
        for message in log
        for notice in monitor.observe(Outcome.model_validate_json(message.data))
    ]
    assert replayed == await alerts(jetstream)
    assert len(replayed) == 3


@pytest.mark.req("M16")
async def test_outcomes_a_killed_process_held_are_counted_in_their_order(
    jetstream, settings
) -> None:
    """It dies with a whole batch unacknowledged, and newer outcomes come in meanwhile."""
    await publish(jetstream, outcomes(*([True] * 80), *([False] * 20), first=0))
    killed = await jetstream.pull_subscribe_bind("monitoring-outcomes", stream="TELEMETRY")
    assert len(await killed.fetch(100)) == 100
    await publish(jetstream, outcomes(*([True] * 10), first=100))
    async with create_app(settings).running(), asyncio.timeout(20):
        while not await alerts(jetstream):
            await asyncio.sleep(0.05)
    (fired,) = await alerts(jetstream)
    assert (fired.at, fired.value, fired.n) == (99.0, 0.8, 100)
