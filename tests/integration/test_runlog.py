"""The run log on a real nats-server."""

from __future__ import annotations

import asyncio

import nats
import pytest

from contracts.curation import CurationHalted
from contracts.diagnosis import RunCancelled
from contracts.subjects import RunRef
from contracts.synthesis import RowsSynthesized
from shared.errors import TransientError
from shared.messaging.embedded import EmbeddedNats
from shared.messaging.provision import provision
from shared.messaging.runlog import RunClosed, RunLog

REF = RunRef("acme", "r1")


def fact(n: int = 0) -> RowsSynthesized:
    return RowsSynthesized(rows="sha256:" + "0" * 64, requested=n, accepted=0, distinct_2=0.0)


@pytest.fixture
async def jetstream(nats_server: EmbeddedNats):
    connection = await nats.connect(nats_server.url)
    js = connection.jetstream()
    await provision(js)
    yield js
    await connection.close()


@pytest.mark.req("P3")
async def test_one_of_forty_racers_wins_each_version(jetstream) -> None:
    logs = [RunLog(jetstream) for _ in range(40)]
    await asyncio.gather(
        *(log.append(REF, fact(i), cause=f"cause-{i}") for i, log in enumerate(logs))
    )
    run = await RunLog(jetstream).load(REF)
    assert len(run.log) == 40
    assert len({r.cause for r in run.log}) == 40
    assert [r.seq for r in run.log] == sorted({r.seq for r in run.log})


@pytest.mark.req("P3")
async def test_the_same_fact_from_the_same_cause_is_written_once(jetstream) -> None:
    await asyncio.gather(*(RunLog(jetstream).append(REF, fact(), cause="cause") for _ in range(20)))
    assert len((await RunLog(jetstream).load(REF)).log) == 1


async def test_another_runs_events_do_not_disturb_the_compare_and_set(jetstream) -> None:
    log = RunLog(jetstream)
    await log.append(REF, fact(), cause="a")
    await log.append(RunRef("acme", "r2"), fact(), cause="a")
    run = await log.append(REF, fact(), cause="b")
    assert [r.cause for r in run.log] == ["a", "b"]


async def test_an_ended_run_takes_no_more_facts(jetstream) -> None:
    log = RunLog(jetstream)
    await log.append(REF, RunCancelled(), cause="a")
    with pytest.raises(RunClosed):
        await log.append(REF, CurationHalted(reason="licence", problems=()), cause="b")


async def test_replay_gives_the_same_state(jetstream) -> None:
    log = RunLog(jetstream)
    for i in range(10):
        await log.append(REF, fact(i), cause=str(i))
    assert await log.load(REF) == await RunLog(jetstream).load(REF)


async def test_a_broker_that_is_away_is_a_transient_error(
    jetstream, nats_server: EmbeddedNats
) -> None:
    nats_server.kill()
    with pytest.raises(TransientError):
        await RunLog(jetstream).append(REF, fact(), cause="a")


@pytest.mark.req("P4")
async def test_a_malformed_message_in_a_runs_log_does_not_make_the_run_unreadable(
    jetstream,
) -> None:
    log = RunLog(jetstream)
    await log.append(REF, fact(), cause="a")
    await jetstream.publish("sluice.v1.run.acme.r1.training.trained", b"\xff{", stream="RUN")
    run = await log.append(REF, fact(1), cause="b")
    assert [r.cause for r in run.log] == ["a", "b"]
    assert await RunLog(jetstream).load(REF) == run
