"""Steps on a real nats-server: retries, burials, leases, cancellation, redelivery."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import nats
import pytest

from contracts import subjects
from contracts.base import Service
from contracts.curation import SynthesisRequested
from contracts.diagnosis import RunCancelled
from contracts.fault import StepFailed
from contracts.subjects import RunRef
from contracts.synthesis import RowsSynthesized
from shared.errors import PermanentError, TransientError
from shared.messaging import steps as steps_module
from shared.messaging.broker import Bus
from shared.messaging.host import App
from shared.messaging.provision import provision
from shared.messaging.runlog import RunLog
from shared.messaging.steps import Step, Steps

REF = RunRef("acme", "r1")
ASKED = SynthesisRequested(seeds="sha256:" + "0" * 64, rows=3)
DONE = RowsSynthesized(rows="sha256:" + "1" * 64, requested=3, accepted=3, distinct_2=1.0)


@pytest.fixture
async def jetstream(nats_server):
    connection = await nats.connect(nats_server.url)
    js = connection.jetstream()
    await provision(js)
    yield js
    await connection.close()


@asynccontextmanager
async def synthesis(settings, handler):
    """The synthesis service with `handler` as its one step."""
    bus = Bus(Service.SYNTHESIS, settings)
    Steps(bus).on("synthesize")(handler)
    async with App(bus).running():
        yield bus


async def until(jetstream, ref, predicate, timeout_s: float = 20.0):
    """The run, as soon as `predicate(run)` holds."""
    log = RunLog(jetstream)
    async with asyncio.timeout(timeout_s):
        while not predicate(run := await log.load(ref)):
            await asyncio.sleep(0.05)
    return run


async def dead_letters(jetstream) -> list:
    info = await jetstream.stream_info("DEAD")
    return [await jetstream.get_msg("DEAD", seq=n) for n in range(1, info.state.last_seq + 1)]


@pytest.mark.req("P3")
async def test_a_step_states_its_fact_with_the_trigger_as_cause(jetstream, settings) -> None:
    async def handler(step: Step):
        await step.progress("synthesis", "working")
        return DONE

    async with synthesis(settings, handler):
        await RunLog(jetstream).append(REF, ASKED, cause="test")
        run = await until(jetstream, REF, lambda r: r.synthesized)
    assert run.synthesized == DONE
    assert run.log[1].cause == run.log[0].id


async def test_a_transient_error_is_retried_until_it_passes(jetstream, settings) -> None:
    calls = 0

    async def handler(step: Step):
        nonlocal calls
        calls += 1
        if calls < 3:
            raise TransientError("serving does not answer")
        return DONE

    async with synthesis(settings, handler):
        await RunLog(jetstream).append(REF, ASKED, cause="test")
        await until(jetstream, REF, lambda r: r.synthesized)
    assert calls == 3
    assert await dead_letters(jetstream) == []


@pytest.mark.req("P4")
@pytest.mark.parametrize(
    ("error", "tries"),
    [
        pytest.param(PermanentError("the seeds are gone", mend="curate again"), 1, id="permanent"),
        pytest.param(ValueError("a bug"), 3, id="unexpected"),
    ],
)
async def test_a_hopeless_message_is_buried_and_the_run_says_so(
    jetstream, settings, error, tries
) -> None:
    calls = 0

    async def handler(step: Step):
        nonlocal calls
        calls += 1
        raise error

    async with synthesis(settings, handler):
        await RunLog(jetstream).append(REF, ASKED, cause="test")
        run = await until(jetstream, REF, lambda r: r.closed)
        async with asyncio.timeout(5):
            while not (dead := await dead_letters(jetstream)):
                await asyncio.sleep(0.05)
    failure = run.log[-1].event
    assert isinstance(failure, StepFailed)
    assert (failure.where, failure.message) == (Service.SYNTHESIS, str(error))
    assert calls == tries
    assert [d.headers["sluice-dead-reason"] for d in dead] == [str(error)]
    assert json.loads(dead[0].data) == ASKED.model_dump(mode="json")


@pytest.mark.req("P4")
async def test_a_malformed_event_is_buried_and_the_next_one_is_served(jetstream, settings) -> None:
    async def handler(step: Step):
        return DONE

    subject = subjects.fact(REF.tenant, "bad", ASKED)
    async with synthesis(settings, handler):
        await jetstream.publish(subject, b"\xff{not json", stream="RUN")
        await jetstream.publish(
            subject, b"{}", stream="RUN", headers={"ce-type": ASKED.type_name()}
        )
        await RunLog(jetstream).append(REF, ASKED, cause="test")
        await until(jetstream, REF, lambda r: r.synthesized)
    dead = await dead_letters(jetstream)
    assert len(dead) == 2
    assert {d.headers["sluice-dead-subject"] for d in dead} == {subject}


@pytest.mark.req("P3")
async def test_two_workers_do_a_long_step_once(jetstream, settings, monkeypatch) -> None:
    calls = 0

    async def handler(step: Step):
        nonlocal calls
        calls += 1
        await asyncio.sleep(1.5)
        return DONE

    async with synthesis(settings, handler), synthesis(settings, handler):
        await RunLog(jetstream).append(REF, ASKED, cause="test")
        record = (await RunLog(jetstream).load(REF)).log[0]
        # the same trigger delivered twice, as after a broker crash
        await jetstream.publish(
            subjects.fact(REF.tenant, REF.run, ASKED),
            ASKED.model_dump_json().encode(),
            headers={
                "ce-id": record.id,
                "ce-type": ASKED.type_name(),
                "ce-time": record.at.isoformat(),
                "ce-sluicecause": "test",
            },
            stream="RUN",
        )
        await until(jetstream, REF, lambda r: r.synthesized)
        await asyncio.sleep(1.0)
    assert calls == 1


async def test_cancelling_a_run_reaches_the_working_step(jetstream, settings) -> None:
    noticed = asyncio.Event()

    async def handler(step: Step):
        await step.cancelled.wait()
        noticed.set()

    async with synthesis(settings, handler):
        log = RunLog(jetstream)
        await log.append(REF, ASKED, cause="test")
        await asyncio.sleep(0.5)
        await log.append(REF, RunCancelled(reason="enough"), cause="user")
        async with asyncio.timeout(10):
            await noticed.wait()
    assert (await RunLog(jetstream).load(REF)).status == "cancelled"


async def test_a_lost_lease_stops_the_work(jetstream, settings, monkeypatch) -> None:
    monkeypatch.setattr(steps_module, "RENEW_EVERY_S", 0.4)
    started = 0

    async def handler(step: Step):
        nonlocal started
        started += 1
        if started == 1:
            bucket = await jetstream.key_value("LEASES")
            await bucket.put("acme.r1.synthesis-synthesize", b"a thief")
            await asyncio.sleep(30)
        return DONE

    async with synthesis(settings, handler):
        await RunLog(jetstream).append(REF, ASKED, cause="test")
        await asyncio.sleep(1.5)
        assert started == 1
        assert (await RunLog(jetstream).load(REF)).synthesized is None
        await (await jetstream.key_value("LEASES")).purge("acme.r1.synthesis-synthesize")
        await until(jetstream, REF, lambda r: r.synthesized)
    assert started == 2
