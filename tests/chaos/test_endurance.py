"""Long jobs: twenty acknowledgement waits, a killed holder, SIGTERM again, a power cut."""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import nats
import pytest

from contracts import topology
from contracts.curation import SynthesisRequested
from contracts.subjects import RunRef
from contracts.training import TrainingStarted
from shared.messaging import leases, provision, steps
from shared.messaging.embedded import EmbeddedNats, free_port
from shared.messaging.runlog import RunLog
from tests.chaos.worker import DURABLE, NOTHING, UNIT_S, read, shorten_clocks

pytestmark = [pytest.mark.timeout(1500), pytest.mark.req("P3"), pytest.mark.xdist_group("chaos")]

ROOT = Path(__file__).parents[2]
ACK_WAIT_S = 1.5
GRACE_S = 20.0


@pytest.fixture
async def jetstream(nats_server: EmbeddedNats, monkeypatch) -> AsyncIterator:
    for module, name in (
        *((module, "CONSUMERS") for module in (topology, provision)),
        *((module, "TTL_S") for module in (leases, provision)),
        (steps, "RENEW_EVERY_S"),
    ):
        monkeypatch.setattr(module, name, getattr(module, name))  # as it was, after the test
    shorten_clocks(ACK_WAIT_S)
    connection = await nats.connect(nats_server.url)
    js = connection.jetstream()
    await provision.provision(js)
    yield js
    await connection.close()


class Workers:
    """Worker processes; all are ended with the block."""

    def __init__(self, url: str, folder: Path) -> None:
        self._program = [sys.executable, "-m", "tests.chaos.worker", url, str(folder)]
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self) -> subprocess.Popen[bytes]:
        worker = subprocess.Popen([*self._program, str(ACK_WAIT_S)], cwd=ROOT)
        self._running.append(worker)
        return worker

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._running:
            worker.kill()
            worker.wait()


async def ask(jetstream, run: str, units: int) -> RunRef:
    ref = RunRef("acme", run)
    await RunLog(jetstream).append(ref, SynthesisRequested(seeds=NOTHING, rows=units), cause="test")
    return ref


async def until_done(jetstream, ref: RunRef, timeout_s: float) -> None:
    log = RunLog(jetstream)
    async with asyncio.timeout(timeout_s):
        while not (await log.load(ref)).synthesized:
            await asyncio.sleep(0.1)


async def until_lines(path: Path, run: str, count: int, timeout_s: float = 60) -> list[list[str]]:
    async with asyncio.timeout(timeout_s):
        while True:
            found = [line.split() for line in read(path) if line.split()[0] == run]
            if len(found) >= count:
                return found
            await asyncio.sleep(0.05)


async def until_waiting(jetstream, count: int, timeout_s: float = 90) -> None:
    """Until so many workers ask for the next job."""
    async with asyncio.timeout(timeout_s):
        while ((await jetstream.consumer_info("RUN", DURABLE)).num_waiting or 0) < count:
            await asyncio.sleep(0.1)


async def test_a_job_of_twenty_waits_starts_once_and_a_killed_holders_job_is_taken_over(
    jetstream, nats_server, tmp_path: Path, seed: int, long: bool
) -> None:
    """Beside one long job whose holder is left alone, others, each of whose holders is killed."""
    rng, count = random.Random(seed), 10 if long else 1
    units, waits, refs = int(20 * ACK_WAIT_S / UNIT_S), list[float](), list[RunRef]()
    with Workers(nats_server.url, tmp_path) as workers:
        pids = {worker.pid: worker for worker in (workers.start(), workers.start())}
        steady = await ask(jetstream, "steady", units)
        ((_, holder, _),) = await until_lines(tmp_path / "starts", "steady", 1)
        for n in range(count):
            third = workers.start()
            pids[third.pid] = third
            await until_waiting(jetstream, 2)  # one for the job, one to take it over
            killed, enough = await ask(jetstream, f"killed-{n}", units // 4), rng.randint(5, 30)
            refs.append(killed)
            await until_lines(tmp_path / "units", killed.run, enough)
            ((_, victim, _),) = await until_lines(tmp_path / "starts", killed.run, 1)
            if victim == holder:  # free again: its own job has ended
                assert (await RunLog(jetstream).load(steady)).synthesized
            pids[int(victim)].send_signal(signal.SIGKILL)
            struck = time.monotonic()
            _, (_, heir, resumed_at) = await until_lines(tmp_path / "starts", killed.run, 2)
            waits.append(time.monotonic() - struck)
            assert heir != victim
            assert int(resumed_at) >= enough
            await until_done(jetstream, killed, 120)
        await until_done(jetstream, steady, 120)
    print(f"{count} jobs taken over, after {max(waits):.1f} s at most", flush=True)
    assert max(waits) < 2 * ACK_WAIT_S + 1.0  # and the pause of a refused lease
    starts = Counter(line.split()[0] for line in read(tmp_path / "starts"))
    assert starts == {"steady": 1} | {ref.run: 2 for ref in refs}
    for ref, most in ((steady, units), *((ref, units // 4) for ref in refs)):
        assert len((await RunLog(jetstream).load(ref)).log) == 2
        done = [int(u) for r, _, u in map(str.split, read(tmp_path / "units")) if r == ref.run]
        assert done == list(range(most))


async def test_sigterm_again_and_again_ends_in_time_and_loses_no_unit(
    jetstream, nats_server, tmp_path: Path, seed: int, long: bool
) -> None:
    rng = random.Random(seed)
    times = 100 if long else 4
    ref = await ask(jetstream, "stopped", 10 * times)
    slowest = 0.0
    with Workers(nats_server.url, tmp_path) as workers:
        for n in range(times):
            worker = workers.start()
            await until_lines(tmp_path / "starts", "stopped", n + 1)
            await asyncio.sleep(rng.uniform(0, 0.8))
            worker.send_signal(signal.SIGTERM)
            began = time.monotonic()
            assert await asyncio.to_thread(worker.wait, GRACE_S) == 0
            slowest = max(slowest, time.monotonic() - began)
        workers.start()
        await until_done(jetstream, ref, 10 * times * UNIT_S * 2 + 60)
    print(f"{times} stops, the slowest took {slowest:.2f} s", flush=True)
    done = [int(line.split()[2]) for line in read(tmp_path / "units")]
    assert done == list(range(10 * times))
    assert len((await RunLog(jetstream).load(ref)).log) == 2


async def test_a_copy_of_the_store_taken_while_publishing_holds_all_that_was_acknowledged(
    jetstream, nats_server, tmp_path: Path, seed: int, long: bool
) -> None:
    """As a power cut leaves it, but for the disk cache: that is what `sync_interval` is for."""
    rng = random.Random(seed)
    log, acknowledged, cuts = RunLog(jetstream), [], 10 if long else 3
    enough = asyncio.Event()

    async def publish() -> None:
        while not enough.is_set():
            number = len(acknowledged)
            fact = TrainingStarted(recipe=NOTHING, steps=number, memory_estimate_bytes={})
            await log.append(RunRef("acme", f"r{number % 7}"), fact, cause="t", key=str(number))
            acknowledged.append(number)

    publishing = asyncio.create_task(publish())
    try:
        for cut in range(cuts):
            await asyncio.sleep(rng.uniform(0.2, 1.0))
            before = len(acknowledged)
            copy = tmp_path / f"cut-{cut}"
            await asyncio.to_thread(shutil.copytree, nats_server.folder / "store", copy / "store")
            assert not publishing.done()
            survivor = EmbeddedNats(copy, port=free_port())
            await survivor.start()
            try:
                kept = await _numbers(survivor.url)
            finally:
                survivor.stop()
            assert set(acknowledged[:before]) <= kept
            print(f"cut {cut}: {before} acknowledged, {len(kept)} kept", flush=True)
    finally:
        enough.set()
        await publishing


async def _numbers(url: str) -> set[int]:
    connection = await nats.connect(url)
    try:
        log = RunLog(connection.jetstream())
        runs = [await log.load(RunRef("acme", f"r{n}")) for n in range(7)]
        return {record.event.steps for run in runs for record in run.log}
    finally:
        await connection.close()
