"""Kill -9, SIGTERM and a dead broker in the middle of real runs: each run ends once, and whole."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import nats
import pytest

from contracts.base import Service
from contracts.subjects import PREFIX, RunRef
from contracts.training import TrainingStarted
from shared.errors import TransientError
from shared.messaging.runlog import RunLog
from tests.chaos import hasty
from tests.chaos.havoc import (
    WORK,
    Following,
    Kill,
    Traffic,
    assert_done_once,
    carry_out,
    kill_9,
    outside,
    plan_kills,
    submit,
    until_back,
)
from tests.chaos.killers import Massacre
from tests.e2e.stack import TENANT, Stack, running_stack

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.slow,
    pytest.mark.xdist_group("e2e"),
    pytest.mark.req("P3"),
]

RUN_TIMEOUT_S = 420.0
BACK_WITHIN_S = 10.0
ALWAYS = ("evaluation", "registry", "rollout")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("chaos") / "home") as running:
        yield running


async def test_services_killed_while_they_work_lose_nothing_and_do_nothing_twice(
    stack: Stack, tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    others = [service for service in WORK if service not in ALWAYS]
    kills = plan_kills(rng, [*ALWAYS, rng.choice(others)])
    print("\n".join(map(str, kills)), flush=True)

    ref = submit(stack, tmp_path / "job", "killed", max_steps=40, seed=0)
    with Traffic(stack, ref.run):
        done = await _run_to_its_end(stack, ref, kills)
    assert done, "nobody was killed"
    print(f"{len(done)} of {len(kills)} kills struck: {', '.join(map(str, done))}", flush=True)
    await assert_done_once(stack, ref)


@pytest.mark.timeout(3600)
async def test_every_service_killed_fifty_times_loses_no_run_and_writes_no_fact_twice(
    tmp_path: Path, seed: int, long: bool, kills: int
) -> None:
    if not long:
        pytest.skip("the long form; the short one is above")
    with running_stack(tmp_path / "home", module=hasty.__name__) as stack:
        async with outside(stack) as jetstream:
            massacre = Massacre(stack, jetstream, tmp_path, random.Random(seed))
            await massacre.go_on(dict.fromkeys(Service, kills))
        print(f"kills: {_counts(massacre.struck)}", flush=True)
        print(f"while a run waited for it: {_counts(massacre.at_work)}", flush=True)
        for ref in massacre.refs:
            await assert_done_once(stack, ref)
    print(f"{len(massacre.refs)} runs promoted, every fact once", flush=True)
    assert massacre.struck == dict.fromkeys(Service, kills)


async def test_a_killed_broker_comes_back_with_all_it_acknowledged(
    stack: Stack, tmp_path: Path, seed: int, long: bool, repeat: int
) -> None:
    rng = random.Random(seed + repeat)
    moments = [(service, after) for service in WORK for after in WORK[service]]
    chosen, waits = rng.sample(moments, 5 if long else 1), list[float]()
    ref = submit(stack, tmp_path / "job", f"broken-{repeat}", max_steps=40, seed=10 + repeat)
    with Traffic(stack, ref.run):
        async with outside(stack) as jetstream, asyncio.timeout(RUN_TIMEOUT_S):
            enough = asyncio.Event()
            writing = asyncio.create_task(_write_facts(jetstream, f"ledger-{repeat}", enough))
            following = Following(jetstream, ref)
            one_at_a_time = asyncio.Lock()

            async def strike(after: str, delay_s: float) -> set[str]:
                await following.until_fact(after)
                await asyncio.sleep(delay_s)
                async with one_at_a_time:
                    before = (await following.look()).ids
                    assert kill_9(stack.pid_of_broker()), "no broker to kill"
                    back_s = await until_back(stack)
                print(f"broker killed {delay_s:.2f} s after {after}, back after {back_s:.1f} s")
                waits.append(back_s)
                return set(before)

            strikes = [
                asyncio.create_task(strike(after, rng.uniform(0, 1.5))) for _, after in chosen
            ]
            await following.until_over()
            enough.set()
            acknowledged: set[str] = set().union(*await asyncio.gather(*strikes))
            written = await writing
    run = await assert_done_once(stack, ref)
    assert acknowledged <= run.ids
    async with outside(stack) as jetstream:
        ledger = await RunLog(jetstream).load(RunRef(TENANT, f"ledger-{repeat}"))
    kept = [record.event.steps for record in ledger.log]
    assert kept[: len(written)] == written
    assert len(written) > 50
    assert max(waits) <= BACK_WITHIN_S * (1 if long else 3), waits  # the short form shares its CPUs


@pytest.mark.req("T4")
async def test_a_platform_stopped_in_mid_training_goes_on_when_it_is_started_again(
    stack: Stack, tmp_path: Path
) -> None:
    ref = submit(stack, tmp_path / "job", "stopped", max_steps=400, seed=99)
    await _until_step(stack, ref, 12)
    await asyncio.to_thread(stack.restart)
    with Traffic(stack, ref.run):
        async with outside(stack) as jetstream, asyncio.timeout(RUN_TIMEOUT_S):
            await Following(jetstream, ref).until_over()
    run = await assert_done_once(stack, ref)
    assert run.trained is not None
    assert (run.trained.resumed_from or 0) > 0


def _counts(of: Counter[str]) -> str:
    return ", ".join(f"{name} {of[name]}" for name in Service)


async def _run_to_its_end(stack: Stack, ref: RunRef, kills: list[Kill]) -> list[Kill]:
    """The kills that struck."""
    async with outside(stack) as jetstream, asyncio.timeout(RUN_TIMEOUT_S):
        following = Following(jetstream, ref)
        pending = [asyncio.create_task(carry_out(stack, following, kill)) for kill in kills]
        await following.until_over()
        struck = await asyncio.gather(*pending)
    return [kill for kill, hit in zip(kills, struck, strict=True) if hit]


async def _write_facts(
    jetstream: nats.js.JetStreamContext, run: str, enough: asyncio.Event
) -> list[int]:
    """Numbers stated in a run of their own until it is enough; returns those acknowledged."""
    log = RunLog(jetstream)
    ref = RunRef(TENANT, run)
    acknowledged: list[int] = []
    while not enough.is_set():
        number = len(acknowledged)
        fact = TrainingStarted(recipe="sha256:" + "0" * 64, steps=number, memory_estimate_bytes={})
        try:
            await log.append(ref, fact, cause="test", key=str(number))
        except TransientError:
            await asyncio.sleep(0.2)
            continue
        acknowledged.append(number)
        await asyncio.sleep(0.1)
    return acknowledged


async def _until_step(stack: Stack, ref: RunRef, step: int) -> None:
    connection = await nats.connect(stack.nats_url)
    subject = f"{PREFIX}.progress.{ref.tenant}.{ref.run}.training"
    progress = await connection.subscribe(subject)
    async with asyncio.timeout(180):
        while json.loads((await progress.next_msg(timeout=150)).data)["done"] < step:
            pass
    await connection.close()
