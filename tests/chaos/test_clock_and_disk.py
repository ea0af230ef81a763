"""A clock that jumps, a disk that is slow, a broker that stands still: late, and nothing lost."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import struct
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import nats
import pytest

from contracts import topology
from contracts.subjects import RunRef
from shared.messaging import leases, provision, steps
from shared.messaging.embedded import EmbeddedNats
from shared.messaging.runlog import RunLog
from tests.chaos.havoc import Following, Traffic, assert_done_once, outside, submit
from tests.chaos.test_endurance import ACK_WAIT_S, Workers, ask, until_done
from tests.chaos.worker import read, shorten_clocks
from tests.e2e.stack import running_stack

pytestmark = [pytest.mark.timeout(1200), pytest.mark.req("P3"), pytest.mark.xdist_group("chaos")]

YEAR_S = 365 * 86_400.0
SOURCE = Path(__file__).with_name("shim.c")


class Shim:
    """The wall clock and the disk of every process that is started while it is in place."""

    def __init__(self, settings: Path) -> None:
        self._settings = settings
        self._write(0.0, 0.0)

    def _write(self, jump_s: float, delay_s: float) -> None:
        # in place: it is mapped; both values are written by one call
        with self._settings.open("r+b" if self._settings.exists() else "wb") as out:
            out.write(struct.pack("dd", jump_s, delay_s))

    def jump(self, by_s: float) -> None:
        self._write(by_s, 0.0)

    def slow_disk(self, delay_s: float) -> None:
        self._write(0.0, delay_s)


@pytest.fixture
def shim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shim:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler for the shim")
    library, settings = tmp_path / "shim.so", tmp_path / "shim"
    built = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(built, check=True)
    made = Shim(settings)
    monkeypatch.setenv("LD_PRELOAD", str(library))
    monkeypatch.setenv("SHIM_FILE", str(settings))
    return made


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
    js = connection.jetstream(timeout=30)
    await provision.provision(js)
    yield js
    await connection.close()


@asynccontextmanager
async def now_and_then(*, every_s: tuple[float, float], rng: random.Random, do) -> AsyncIterator:
    """`do()`, again and again after a random while, until the block ends."""
    enough = asyncio.Event()

    async def again() -> int:
        times = 0
        while not enough.is_set():
            try:
                await asyncio.wait_for(enough.wait(), rng.uniform(*every_s))
            except TimeoutError:
                await do()
                times += 1
        return times

    task = asyncio.create_task(again())
    try:
        yield
    finally:
        enough.set()
        print(f"{await task} times", flush=True)


@contextmanager
def standing_still(pid: int) -> Iterator[None]:
    """What a disk that answers nothing does to a broker: nothing is acknowledged meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def assert_each_unit_once(jetstream, folder: Path, runs: list[RunRef], units: int) -> None:
    for ref in runs:
        assert len((await RunLog(jetstream).load(ref)).log) == 2, ref
        done = [int(n) for r, _, n in map(str.split, read(folder / "units")) if r == ref.run]
        assert Counter(done) == Counter(range(units)), ref
    assert (await jetstream.stream_info("DEAD")).state.messages == 0


async def test_a_clock_that_jumps_for_years_loses_nothing_and_repeats_nothing(
    jetstream, nats_server, shim: Shim, tmp_path: Path, seed: int, long: bool
) -> None:
    rng, units = random.Random(seed), 400 if long else 40
    runs = [await ask(jetstream, f"r{n}", units) for n in range(2)]

    async def jump() -> None:
        shim.jump(rng.choice([-30, -1, 1, 30]) * rng.choice([1.0, 60.0, 86_400.0, YEAR_S]))

    with Workers(nats_server.url, tmp_path) as workers:
        workers.start(), workers.start()
        async with now_and_then(every_s=(0.1, 0.8), rng=rng, do=jump):
            for ref in runs:
                await until_done(jetstream, ref, 60 + units)
    await assert_each_unit_once(jetstream, tmp_path, runs, units)


async def test_a_slow_disk_and_a_broker_that_stands_still_cost_time_alone(
    jetstream, nats_server, shim: Shim, tmp_path: Path, seed: int, long: bool
) -> None:
    """The broker's pauses are longer than an acknowledgement wait, a lease and a publish."""
    rng, units = random.Random(seed), 300 if long else 20
    shim.slow_disk(0.05)
    runs = [await ask(jetstream, f"r{n}", units) for n in range(2)]

    async def stall() -> None:
        assert nats_server.pid is not None
        with standing_still(nats_server.pid):
            await asyncio.sleep(rng.uniform(0.5, 8.0 if long else 4.0))

    with Workers(nats_server.url, tmp_path) as workers:
        workers.start(), workers.start()
        async with now_and_then(every_s=(1.0, 3.0), rng=rng, do=stall):
            for ref in runs:
                await until_done(jetstream, ref, 120 + 10 * units)
    for ref in runs:
        run = await RunLog(jetstream).load(ref)
        assert len(run.log) == 2, ref
        done = {int(n) for r, _, n in map(str.split, read(tmp_path / "units")) if r == ref.run}
        assert done == set(range(units)), ref
    assert (await jetstream.stream_info("DEAD")).state.messages == 0


@pytest.mark.slow
async def test_a_whole_run_goes_through_jumps_of_the_clock(
    shim: Shim, tmp_path: Path, seed: int, long: bool
) -> None:
    if not long:
        pytest.skip("the long form; the short one is above")
    rng = random.Random(seed)

    async def jump() -> None:
        shim.jump(rng.choice([-1, 1]) * rng.choice([60.0, 86_400.0, YEAR_S]))

    with running_stack(tmp_path / "home") as stack:
        ref = submit(stack, tmp_path / "job", "jumping", max_steps=40, seed=3)
        with Traffic(stack, ref.run):
            async with (
                outside(stack) as jetstream,
                asyncio.timeout(420),
                now_and_then(every_s=(2.0, 6.0), rng=rng, do=jump),
            ):
                await Following(jetstream, ref).until_over()
        await assert_done_once(stack, ref)
