"""The nine traps of these exact versions of FastStream, nats-py and nats-server.

Each test names its trap and shows what our code does about it, on a real server. Where a setting
avoids the trap, the test fails without the setting. Traps 6 to 8 are beside this file
(`test_permission_traps`, `test_store_traps`, `test_wiring_traps`).

1. FastStream's ack policies lose a message or retry in a hot loop.
2. Declaring from a service rewrites streams; a drifted consumer is accepted in silence.
3. A publish that names no stream can vanish.
4. The default reconnect gives up and spins.
5. Without `sync_interval: always` a power cut loses acknowledged events.
6. A permission violation is asynchronous and easy to miss.
7. The object store hangs on a flipped bit: artifacts live in files, by digest.
8. A missing dependency shows as a dead letter, not at start.
9. An in-memory test broker has no acknowledgements, retries or dead letters.
"""

from __future__ import annotations

import ast
import asyncio
import json
import time
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import nats
import pytest
from nats.js.errors import NoStreamResponseError

from contracts import subjects
from contracts.base import Service
from contracts.curation import SynthesisRequested
from contracts.subjects import RunRef
from contracts.synthesis import RowsSynthesized
from contracts.topology import CONSUMERS, STREAMS, consumer
from shared.errors import (
    Misconfigured,
    PermanentError,
    TransientError,
)
from shared.messaging import broker as broker_module
from shared.messaging.broker import Bus
from shared.messaging.delivery import bury
from shared.messaging.embedded import EmbeddedNats, free_port
from shared.messaging.host import App
from shared.messaging.provision import consumer_config, provision, stream_config
from shared.messaging.runlog import RunLog
from shared.messaging.steps import Step, Steps
from tests.integration.broker_processes import start_server, start_service

ROOT = Path(__file__).parents[2]
REF = RunRef("acme", "r1")
ASKED = SynthesisRequested(seeds="sha256:" + "0" * 64, rows=3)
DONE = RowsSynthesized(rows="sha256:" + "1" * 64, requested=3, accepted=3, distinct_2=1.0)


@pytest.fixture
async def connection(nats_server: EmbeddedNats):
    client = await nats.connect(
        nats_server.url, max_reconnect_attempts=-1, reconnect_time_wait=0.1, error_cb=_quiet
    )
    yield client
    await client.close()


@pytest.fixture
async def jetstream(connection):
    js = connection.jetstream(timeout=5)
    await provision(js)
    return js


async def _quiet(_: Exception) -> None:
    """A broker that goes away is what these tests are about."""


@asynccontextmanager
async def synthesis(settings, handler):
    bus = Bus(Service.SYNTHESIS, settings)
    Steps(bus).on("synthesize")(handler)
    async with App(bus).running():
        yield bus


async def until(predicate, timeout_s: float = 20.0):
    async with asyncio.timeout(timeout_s):
        while not (found := await predicate()):
            await asyncio.sleep(0.05)
    return found


async def status_of(jetstream):
    return (await RunLog(jetstream).load(REF)).status


# 1 -----------------------------------------------------------------------------------------------


@pytest.mark.req("P4")
async def test_a_message_is_kept_while_the_dead_letter_stream_is_down(jetstream, settings) -> None:
    calls: list[float] = []

    async def handler(step: Step):
        calls.append(time.monotonic())
        raise PermanentError("never")

    async def dead():
        return (await jetstream.stream_info("DEAD")).state.messages

    async with synthesis(settings, handler) as bus:
        await jetstream.delete_stream("DEAD")
        subject = subjects.fact(REF.tenant, "bad", ASKED)
        await jetstream.publish(subject, b"not json", stream="RUN")  # malformed: permanent
        await asyncio.sleep(1.2)
        waiting = await jetstream.consumer_info("RUN", "synthesis-synthesize")
        assert waiting.num_ack_pending == 1
        await jetstream.add_stream(stream_config(STREAMS[-1], 1))
        await until(dead)
        assert bus.service == Service.SYNTHESIS

    after = await jetstream.consumer_info("RUN", "synthesis-synthesize")
    assert after.num_ack_pending == 0
    assert after.delivered.consumer_seq >= 2


async def test_a_failing_handler_is_retried_with_growing_pauses_not_in_a_hot_loop(
    jetstream, settings
) -> None:
    calls: list[float] = []

    async def handler(step: Step):
        calls.append(time.monotonic())
        raise TransientError("serving does not answer")

    async with synthesis(settings, handler):
        await RunLog(jetstream).append(REF, ASKED, cause="test")
        await asyncio.sleep(2.6)
    assert 2 <= len(calls) <= 4
    pauses = [later - earlier for earlier, later in pairwise(calls)]
    assert pauses[0] > 0.4
    assert pauses == sorted(pauses)


# 2 -----------------------------------------------------------------------------------------------


async def test_provisioning_twice_changes_nothing_and_keeps_every_message(jetstream) -> None:
    await RunLog(jetstream).append(REF, ASKED, cause="test")
    before = [(await jetstream.stream_info(s.name)).config for s in STREAMS]
    await provision(jetstream)
    assert [(await jetstream.stream_info(s.name)).config for s in STREAMS] == before
    assert len((await RunLog(jetstream).load(REF)).log) == 1


async def remove_consumer(js):
    await js.delete_consumer("RUN", "synthesis-synthesize")


async def drift_consumer(js):
    config = consumer_config(consumer(Service.SYNTHESIS, "synthesize"))
    config.ack_wait = 7.0
    await js.add_consumer("RUN", config)


async def remove_stream(js):
    await js.delete_stream("DEAD")


async def drift_stream(js):
    config = stream_config(STREAMS[-1], 1)
    config.max_age = 600.0
    await js.update_stream(config)


async def remove_leases(js):
    await js.delete_key_value("LEASES")


async def drift_leases(js):
    config = (await js.stream_info("KV_LEASES")).config
    await js.update_stream(config.evolve(max_age=3600.0))


@pytest.mark.parametrize(
    "damage",
    [remove_consumer, drift_consumer, remove_stream, drift_stream, remove_leases, drift_leases],
)
async def test_a_service_refuses_to_start_on_another_topology_and_mends_nothing(
    jetstream, settings, damage
) -> None:
    await damage(jetstream)
    before = await topology_now(jetstream)

    async def handler(step: Step):
        return DONE

    with pytest.raises(Misconfigured, match=r"does not exist|has drifted") as refused:
        async with synthesis(settings, handler):
            pass
    assert "sluice provision" in refused.value.mend
    assert await topology_now(jetstream) == before
    await provision(jetstream)
    async with synthesis(settings, handler):
        pass


async def topology_now(js):
    streams = [s.config for s in await js.streams_info()]
    return streams, [c.config for c in await js.consumers_info("RUN")]


# 3 -----------------------------------------------------------------------------------------------


async def test_an_append_fails_loudly_when_its_stream_is_missing(jetstream) -> None:
    await jetstream.delete_stream("RUN")
    with pytest.raises(TransientError):
        await RunLog(jetstream).append(REF, ASKED, cause="test")


async def test_a_burial_fails_loudly_when_its_stream_is_missing(jetstream) -> None:
    await RunLog(jetstream).append(REF, ASKED, cause="test")
    subscription = await jetstream.pull_subscribe_bind("synthesis-synthesize", "RUN")
    (message,) = await subscription.fetch(1, timeout=5)
    await jetstream.delete_stream("DEAD")
    with pytest.raises(NoStreamResponseError):
        await bury(jetstream, Service.SYNTHESIS, message, PermanentError("x"))


def test_every_jetstream_publish_names_its_stream_and_a_timeout() -> None:
    found = 0
    for path in [*ROOT.glob("shared/**/*.py"), *ROOT.glob("services/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            receiver = ast.unparse(node.func.value)
            if node.func.attr == "publish" and ("js" in receiver or "jetstream" in receiver):
                found += 1
                named = {k.arg for k in node.keywords}
                assert {"stream", "timeout"} <= named, f"{path}:{node.lineno}"
    assert found >= 2


# 4 -----------------------------------------------------------------------------------------------


@pytest.mark.req("P3")
async def test_a_service_goes_on_after_the_broker_was_killed_and_came_back(
    nats_server, jetstream, settings, monkeypatch, long: bool
) -> None:
    """Six seconds away: the client's own patience, made short, would end within one."""
    away_s = 60.0 if long else 6.0
    monkeypatch.setattr(broker_module, "RECONNECT_WAIT_S", 0.02)

    async def handler(step: Step):
        return DONE

    async def finished():
        return (await RunLog(jetstream).load(REF)).synthesized

    async with synthesis(settings, handler) as bus:
        await RunLog(jetstream).append(RunRef("acme", "before"), ASKED, cause="test")
        nats_server.kill()
        busy_s = time.process_time()
        await asyncio.sleep(away_s)
        busy_s = time.process_time() - busy_s
        print(f"{busy_s:.2f} s of processor time in {away_s:g} s without a broker", flush=True)
        assert busy_s < away_s / 2, "it spins"
        assert not bus.connection.is_closed
        await nats_server.start()
        await until(lambda: _connected(bus))
        await RunLog(jetstream).append(REF, ASKED, cause="test")
        assert await until(finished)


async def _connected(bus: Bus) -> bool:
    return bool(bus.connection.is_connected)


async def test_a_service_whose_connection_is_closed_for_good_exits(jetstream, settings) -> None:
    service = start_service(settings.nats_url, "await app.bus.connection.close()")
    assert service.wait(20) == broker_module.EX_UNAVAILABLE


@pytest.mark.req("P3")
async def test_killing_the_broker_amid_appends_loses_no_acknowledged_event(
    nats_server, jetstream
) -> None:
    acknowledged: set[str] = set()

    async def writer(name: str) -> None:
        log, ref = RunLog(jetstream), RunRef("acme", name)
        for n in range(20):
            while True:
                try:
                    await log.append(ref, ASKED, cause=f"{name}-{n}")
                except TransientError:
                    await asyncio.sleep(0.1)
                else:
                    acknowledged.add(f"{name}-{n}")
                    break

    async def crash() -> None:
        while len(acknowledged) < 60:
            await asyncio.sleep(0.002)
        nats_server.kill()
        await nats_server.start()

    async with asyncio.timeout(60):
        await asyncio.gather(crash(), *(writer(f"w{n}") for n in range(10)))
    found = [
        record.cause
        for n in range(10)
        for record in (await RunLog(jetstream).load(RunRef("acme", f"w{n}"))).log
    ]
    assert len(acknowledged) == 200
    assert sorted(found) == sorted(acknowledged)


async def test_every_stream_outlives_a_broker_crash(nats_server, jetstream) -> None:
    """A stream in memory is gone after a restart; nobody would create it again."""
    nats_server.kill()
    await nats_server.start()

    async def names():
        try:
            return {s.config.name for s in await jetstream.streams_info()}
        except (nats.errors.Error, TimeoutError):
            return None

    assert {s.name for s in STREAMS} <= await until(names)


# 5 -----------------------------------------------------------------------------------------------


async def test_the_embedded_server_syncs_every_write(nats_server, connection, tmp_path) -> None:
    assert "sync_interval: always" in (tmp_path / "nats" / "nats.conf").read_text()
    monitor = free_port()
    second = tmp_path / "second"
    second.mkdir()
    config = (tmp_path / "nats" / "nats.conf").read_text()
    config = config.replace(str(nats_server.port), str(free_port()))
    config = config.replace((tmp_path / "nats").as_posix(), second.as_posix())
    (second / "nats.conf").write_text(f'{config}\nhttp: "127.0.0.1:{monitor}"\n')
    server = start_server(second / "nats.conf")
    try:
        varz = await until(lambda: _varz(monitor))
        assert varz["jetstream"]["config"]["sync_always"] is True
    finally:
        server.kill()
        server.wait()


async def _varz(port: int):
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return None
    writer.write(b"GET /varz HTTP/1.0\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return json.loads(answer.split(b"\r\n\r\n", 1)[1])


# 9 -----------------------------------------------------------------------------------------------


def test_no_test_uses_the_in_memory_test_broker() -> None:
    name = "Test" + "NatsBroker"
    assert [p for p in ROOT.glob("tests/**/*.py") if name in p.read_text(encoding="utf-8")] == []
    assert len(CONSUMERS) > 0
