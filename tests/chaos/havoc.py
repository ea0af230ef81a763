"""What the failure tests share: a run's log seen from outside, traffic, and whom to kill when.

A kill is planned as a moment of the run, so many seconds after a fact that gives the service work,
because a service killed while it waits proves little.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import nats
import nats.errors
from nats.js import JetStreamContext
from nats.js.errors import Error as JetStreamError

from contracts import subjects
from contracts.envelope import Recorded
from contracts.run import Run
from contracts.subjects import RunRef
from contracts.topology import CONSUMERS, Consumer
from shared.errors import TransientError
from shared.messaging.runlog import RunLog
from tests.e2e.stack import TENANT, Stack, write_job

WORK: dict[str, tuple[str, ...]] = {
    "diagnosis": ("diagnosis.accepted",),
    "curation": ("diagnosis.train_advised",),
    "training": ("curation.curated", "training.started"),
    "evaluation": ("training.trained", "evaluation.gate_judged"),
    "registry": (
        "evaluation.gate_judged",
        "registry.registered",
        "rollout.stage_judged",
        "rollout.completed",
    ),
    "rollout": ("registry.registered", "rollout.stage_started", "registry.attested"),
    "serving": ("training.trained", "registry.registered", "rollout.stage_started"),
}
"""Service → the facts after which it has something to do."""

ONCE = (
    "diagnosis.accepted",
    "diagnosis.train_advised",
    "curation.curated",
    "training.started",
    "training.trained",
    "registry.registered",
    "rollout.completed",
    "registry.promoted",
)
LONGEST_WAIT_S = 2.5


@dataclass(frozen=True, slots=True)
class Kill:
    """Kill -9 of `service`, `delay_s` after the `nth` fact named `after`."""

    service: str
    after: str
    nth: int
    delay_s: float

    def __str__(self) -> str:
        return f"{self.service} {self.delay_s:.2f} s after {self.after} #{self.nth}"


def plan_kills(rng: random.Random, victims: list[str]) -> list[Kill]:
    """One kill per victim, each at a moment of its own work."""
    kills = []
    for service in victims:
        after = rng.choice(WORK[service])
        often = {"evaluation.gate_judged": 3, "rollout.stage_started": 2, "rollout.stage_judged": 2}
        nth = rng.randint(1, often.get(after, 1))
        kills.append(Kill(service, after, nth, round(rng.uniform(0, LONGEST_WAIT_S), 2)))
    return kills


def name_of(record: Recorded) -> str:
    """`training.trained`, say."""
    return record.event.type_name().removeprefix("sluice.v1.")


@asynccontextmanager
async def outside(stack: Stack) -> AsyncIterator[JetStreamContext]:
    """A client's JetStream; it survives the broker."""

    async def quiet(_: Exception) -> None:
        return None

    connection = await nats.connect(
        stack.nats_url, max_reconnect_attempts=-1, reconnect_time_wait=0.2, error_cb=quiet
    )
    try:
        yield connection.jetstream(timeout=5)
    finally:
        await connection.close()


class Following:
    """A run's log, as it grows; asks again whenever the broker is away."""

    def __init__(self, jetstream: JetStreamContext, ref: RunRef) -> None:
        self._log = RunLog(jetstream)
        self.run = Run(ref=ref)

    async def look(self) -> Run:
        try:
            self.run = await self._log.load(self.run.ref)
        except TransientError:
            await asyncio.sleep(0.2)
        return self.run

    async def until_fact(self, name: str, nth: int = 1) -> None:
        """Until the log holds `nth` of them, or the run has ended."""
        while not (self.run.closed or self.count(name) >= nth):
            await asyncio.sleep(0.1)
            await self.look()

    async def until_over(self) -> Run:
        while not (self.run.closed or self.run.status == "held"):
            await asyncio.sleep(0.2)
            await self.look()
        return self.run

    def count(self, name: str) -> int:
        return sum(name_of(record) == name for record in self.run.log)


def kill_9(pid: int | None) -> bool:
    """Whether there was anyone to kill."""
    if pid is None:
        return False
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


async def carry_out(stack: Stack, following: Following, kill: Kill) -> bool:
    """Wait for the moment, then kill. False if the run ended first or nobody was there."""
    await following.until_fact(kill.after, kill.nth)
    if following.run.closed:
        return False
    await asyncio.sleep(kill.delay_s)
    return kill_9(await asyncio.to_thread(stack.pid_of, kill.service))


async def until_back(stack: Stack) -> float:
    """Seconds until every service answers through the broker, and every idle consumer asks."""
    began = time.monotonic()
    async with outside(stack) as jetstream:
        waiting = set(WORK)
        while waiting:
            for service in sorted(waiting):
                with suppress(nats.errors.Error, TimeoutError):
                    await jetstream._nc.request(subjects.health(service), timeout=1)
                    waiting.discard(service)
            await asyncio.sleep(0.05)
        answered_s = time.monotonic() - began
        for row in CONSUMERS:
            while row.service in WORK and not await _asks(jetstream, row):
                await asyncio.sleep(0.1)
    print(f"all services answered after {answered_s:.1f} s, the last was {service}", flush=True)
    return time.monotonic() - began


async def _asks(jetstream: JetStreamContext, row: Consumer) -> bool:
    """Whether a consumer waits for its next message, or has one in hand."""
    try:
        info = await jetstream.consumer_info(row.stream, row.durable)
    except (nats.errors.Error, JetStreamError, TimeoutError):
        return False
    return bool(info.num_waiting or info.num_ack_pending)


class Traffic:
    """Requests to a deployment, whatever happens to it, until the block ends."""

    def __init__(
        self, stack: Stack, deployment: str, *, every_s: float = 0.05, beside: str | None = None
    ) -> None:
        """Every second request goes to the replica `beside`, where there is one."""
        self._stack = stack
        self._deployment = deployment
        self._every_s = every_s
        self._urls = [stack.serving_url, *([beside] if beside else [])]
        self.answered: Counter[str] = Counter()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._drive)

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _drive(self) -> None:
        number = 0
        while not self._stop.wait(self._every_s):
            number += 1
            url = self._urls[number % len(self._urls)]
            try:
                answer = self._stack.ask(
                    f"request {number}", f"{number}", deployment=self._deployment, url=url
                )
            except (httpx.HTTPError, OSError):
                time.sleep(0.5)
                continue
            if answer.status_code != 200:
                time.sleep(0.5)
                continue
            self.answered[url] += 1


def short_job(folder: Path, name: str, **train: Any) -> Path:
    """The tiny job with the fewest gates and the shortest ladder."""
    return write_job(
        folder,
        name=name,
        task_namespace=name.replace("-", "_"),
        method={"train": train},
        gates={"required": ["G1", "G2", "G3"]},
        rollout={
            "deployment": name,
            "shadow_outcomes": 4,
            "stages": [{"percent": 100, "outcomes": 4}],
        },
    )


def submit(stack: Stack, folder: Path, run: str, **train: Any) -> RunRef:
    submitted = stack.sluice("submit", str(short_job(folder, run, **train)), "--run", run)
    assert submitted.returncode == 0, submitted.stderr
    return RunRef(TENANT, run)


async def assert_done_once(stack: Stack, ref: RunRef) -> Run:
    """Promoted; every fact stated once; nothing buried."""
    async with outside(stack) as jetstream:
        run = await RunLog(jetstream).load(ref)
        buried = (await jetstream.stream_info("DEAD")).state.messages
    facts = Counter(name_of(record) for record in run.log)
    assert run.status == "promoted", (run.status, run.log[-1].event)
    assert [name for name, n in Counter(r.id for r in run.log).items() if n > 1] == []
    assert {name: facts[name] for name in ONCE} == dict.fromkeys(ONCE, 1)
    gates = [r.event.gate for r in run.log if name_of(r) == "evaluation.gate_judged"]
    assert sorted(gates) == ["G1", "G2", "G3"]
    for kind in ("rollout.stage_started", "rollout.stage_judged"):
        stages = [(r.event.stage, r.event.percent) for r in run.log if name_of(r) == kind]
        assert stages == [("shadow", 0), ("canary", 100)], kind
    assert buried == 0
    return run
