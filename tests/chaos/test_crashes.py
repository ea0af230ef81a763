"""Events that kill the process that handles them, among good ones."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import nats
import pytest

from contracts import subjects, topology
from contracts.curation import SynthesisRequested
from contracts.subjects import RunRef
from services.cli.deadletters import letter, letters, replay
from services.cli.session import Session
from shared.messaging import delivery, leases, provision, steps
from shared.messaging.runlog import RunLog
from shared.messaging.suspects import MOST_DEATHS, ProcessDied
from shared.messaging.tail import history
from shared.sandbox import Limits
from shared.sandbox.cgroup import control_group
from tests.chaos.brittle import hurry, is_poison
from tests.chaos.worker import NOTHING, read

pytestmark = [pytest.mark.timeout(3600), pytest.mark.req("P4"), pytest.mark.xdist_group("chaos")]

ROOT = Path(__file__).parents[2]
ACK_WAIT_S = 1.0
REPLICAS = 8


@pytest.fixture
async def opened(nats_server, settings, monkeypatch) -> AsyncIterator[Session]:
    for module, name in (
        *((module, "CONSUMERS") for module in (topology, provision)),
        *((module, "TTL_S") for module in (leases, provision)),
        (steps, "RENEW_EVERY_S"),
        (delivery, "MAX_DELAY_S"),
    ):
        monkeypatch.setattr(module, name, getattr(module, name))  # as it was, after the test
    hurry(ACK_WAIT_S)
    connection = await nats.connect(nats_server.url)
    js = connection.jetstream(timeout=30)
    await provision.provision(js)
    yield Session(settings, connection, js)
    await connection.close()


@contextmanager
def restarted_service(url: str, folder: Path, groups: Sequence[Path] = ()) -> Iterator[None]:
    program = [sys.executable, "-m", "tests.chaos.brittle", url, str(folder), str(ACK_WAIT_S)]
    program += map(str, groups)
    process = subprocess.Popen(program, cwd=ROOT, start_new_session=True)
    try:
        yield
        assert process.poll() is None
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


async def test_events_that_kill_their_process_are_buried_and_every_good_one_is_processed(
    opened: Session, nats_server, tmp_path: Path, seed: int, long: bool
) -> None:
    rng, jetstream = random.Random(seed), opened.js
    poisonous, good = (1000, 1000) if long else (8, 8)
    names = [f"poison-{n}" for n in range(poisonous)] + [f"good-{n}" for n in range(good)]
    rng.shuffle(names)
    log = RunLog(jetstream)
    for name in names:
        asked = SynthesisRequested(seeds=NOTHING, rows=rng.randint(1, 1000))
        await log.append(RunRef("acme", name), asked, cause="test")
    with ExitStack() as services:
        for _ in range(REPLICAS if long else 1):
            services.enter_context(restarted_service(nats_server.url, tmp_path))
        async with asyncio.timeout(60 + poisonous * 3):
            told = 0
            while (
                dead_now := (await jetstream.stream_info("DEAD")).state.messages
            ) < poisonous or (await jetstream.stream_info("RUN")).state.messages < 2 * len(names):
                if dead_now >= told + 50:
                    told = dead_now
                    print(f"{told} of {poisonous} buried", flush=True)
                await asyncio.sleep(0.2)
    deaths = Counter(read(tmp_path / "deaths"))
    print(f"{deaths.total()} processes died over {len(deaths)} events", flush=True)
    assert set(deaths) == {name for name in names if is_poison(name)}
    assert set(deaths.values()) == {MOST_DEATHS}

    dead = await history(jetstream, "DEAD", subjects.dead("synthesis"))
    assert len(dead) == poisonous
    assert {m.headers["sluice-dead-error"] for m in dead} == {ProcessDied.__name__}
    assert all(f"{MOST_DEATHS} processes died" in m.headers["sluice-dead-reason"] for m in dead)
    assert Counter(RunRef.of(m.headers["sluice-dead-subject"]).run for m in dead) == dict.fromkeys(
        deaths, 1
    )
    for name in names:
        run = await log.load(RunRef("acme", name))
        _, answer = (record.event for record in run.log)
        assert (run.status == "failed") == is_poison(name), name
        assert is_poison(name) or answer == run.synthesized
    assert list((tmp_path / "home" / "suspects").iterdir()) == []

    listed = await letters(opened)
    assert {row["error"] for row in (dead.as_json() for dead in listed)} == {"ProcessDied"}
    shown = await letter(opened, rng.choice(listed).number)
    assert "asked for another attempt" in await replay(opened, shown)
    ref = RunRef.of(shown.header("subject"))
    assert await jetstream.get_last_msg("JOBS", subjects.command(ref.tenant, ref.run, "retry"))
    assert len(await letters(opened)) == poisonous - 1


MEMORY = Limits(memory_bytes=192 << 20, processes=64)


@pytest.mark.parametrize("ends_by", ["the kernel", "an error"])
async def test_a_job_without_end_of_memory_fails_with_the_reason_and_the_others_go_on(
    opened: Session, nats_server, tmp_path: Path, ends_by: str
) -> None:
    jetstream, log = opened.js, RunLog(opened.js)
    names = ["good-0", "hungry-0", "good-1", "good-2"]
    for name in names:
        asked = SynthesisRequested(seeds=NOTHING, rows=1)
        await log.append(RunRef("acme", name), asked, cause="test")
    with ExitStack() as stack:
        groups: tuple[Path, ...] = ()
        if ends_by == "the kernel":
            groups = stack.enter_context(control_group(MEMORY))
            if not groups:
                pytest.skip("only who may make a control group can have the kernel kill in it")
        stack.enter_context(restarted_service(nats_server.url, tmp_path, groups))
        async with asyncio.timeout(90):
            while (await jetstream.stream_info("RUN")).state.messages < 2 * len(names):
                await asyncio.sleep(0.2)
    tried = len(read(tmp_path / "deaths"))
    assert tried == (MOST_DEATHS if ends_by == "the kernel" else delivery.UNEXPECTED_TRIES)
    runs = {name: await log.load(RunRef("acme", name)) for name in names}
    assert [name for name, run in runs.items() if run.status == "failed"] == ["hungry-0"]
    failed = runs["hungry-0"].log[-1].event
    assert failed.error == ("ProcessDied" if ends_by == "the kernel" else "OutOfMemory")
    assert "memory" in failed.mend
    (dead,) = await history(jetstream, "DEAD", subjects.dead("synthesis"))
    assert dead.headers["sluice-dead-error"] == failed.error
