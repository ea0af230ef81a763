"""Two replicas of every service that works on steps share the runs; each fact is stated once."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from contracts.subjects import RunRef
from contracts.topology import LEASES
from shared.messaging.accounts import Logins
from shared.messaging.embedded import free_port
from tests.chaos.havoc import Following, Traffic, assert_done_once, outside, submit
from tests.e2e.stack import Stack, environment, running_stack

pytestmark = [
    pytest.mark.timeout(1200),
    pytest.mark.slow,
    pytest.mark.xdist_group("e2e"),
    pytest.mark.req("P7"),
]

ON_STEPS = ("diagnosis", "curation", "training", "evaluation", "registry", "rollout")
REPLICATED = (*ON_STEPS, "synthesis", "serving")
RUN_TIMEOUT_S = 600.0


@contextmanager
def second_replicas(stack: Stack, logs: Path) -> Iterator[str]:
    """Another process of each of them, with its service's own login; the second serving's URL."""
    logins, running, port = Logins(stack.home), [], free_port()
    told = environment(stack.home) | {
        "SLUICE_NATS_URL": f"nats://127.0.0.1:{stack.ports.nats}",
        "SLUICE_SERVING_URL": stack.serving_url,
        "SLUICE_SERVING_PORT": str(port),
    }
    for service in REPLICATED:
        with (logs / f"{service}-2.log").open("wb") as log:
            running.append(
                subprocess.Popen(
                    [sys.executable, "-m", f"services.{service}"],
                    env=told | {"SLUICE_NATS_CREDENTIALS": str(logins.path(service))},
                    stdout=log,
                    stderr=log,
                )
            )
    try:
        yield f"http://127.0.0.1:{port}/v1"
        assert [process.poll() for process in running] == [None] * len(running)
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(40)


class Holders:
    """Who held the leases of which service: process ids, as the bucket tells them."""

    def __init__(self) -> None:
        self.of: defaultdict[str, set[str]] = defaultdict(set)
        self._enough = asyncio.Event()

    async def watch(self, jetstream) -> None:
        watcher = await (await jetstream.key_value(LEASES)).watchall()
        while not self._enough.is_set():
            with suppress(TimeoutError, asyncio.TimeoutError):
                entry = await watcher.updates(timeout=0.5)
                if entry is not None and entry.value:
                    service = entry.key.rsplit(".", 1)[-1].partition("-")[0]
                    self.of[service].add(entry.value.decode())
        await watcher.stop()

    def stop(self) -> None:
        self._enough.set()


async def test_two_replicas_of_every_service_share_the_runs(
    tmp_path: Path, seed: int, long: bool
) -> None:
    rng, count = random.Random(seed), 8 if long else 3
    with running_stack(tmp_path / "home") as stack, ExitStack() as during:
        beside = during.enter_context(second_replicas(stack, tmp_path))
        refs: list[RunRef] = []
        traffics: list[Traffic] = []
        holders = Holders()
        async with outside(stack) as jetstream, asyncio.timeout(RUN_TIMEOUT_S):
            watching = asyncio.create_task(holders.watch(jetstream))
            for number in range(count):
                name = f"shared-{number}"
                ref = await asyncio.to_thread(
                    submit, stack, tmp_path / name, name, max_steps=40, seed=rng.randrange(1000)
                )
                refs.append(ref)
                traffics.append(during.enter_context(Traffic(stack, ref.run, beside=beside)))
            await asyncio.gather(*(Following(jetstream, ref).until_over() for ref in refs))
            holders.stop()
            await watching
        for ref in refs:
            await assert_done_once(stack, ref)
    shared = {service: len(holders.of[service]) for service in ON_STEPS}
    print(f"{count} runs, processes that held leases: {shared}", flush=True)
    answered = sum((traffic.answered for traffic in traffics), Counter[str]())
    print(f"users were answered by serving: {sorted(answered.values())}", flush=True)
    assert len(answered) == 2, "one replica of serving answered nobody"
    assert all(count <= 2 for count in shared.values())
    assert shared["training"] == shared["evaluation"] == 2
