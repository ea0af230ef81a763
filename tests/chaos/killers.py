"""Kill -9 of every service, many times, while several runs are in flight.

Each service has a killer of its own. It waits until its victim answers, then until a run waits for
the victim (at most `LONGEST_IDLE_S`, as an idle service dies as well), then a random while; then it
kills. New runs are submitted as long as there is someone to kill.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

import nats.errors
from nats.js import JetStreamContext

from contracts import subjects
from contracts.base import Service
from contracts.subjects import RunRef
from tests.chaos.havoc import LONGEST_WAIT_S, WORK, Following, Traffic, kill_9, name_of, submit
from tests.e2e.stack import Stack

IN_FLIGHT = 4
LONGEST_IDLE_S = 10.0
MOST_ON_ONE_FACT = 3
"""Kills of a service before every run has moved on: after five, its message would be buried, and
a run whose services never live as long as a step takes would not end."""
LOOK_EVERY_S = 0.25
ASK_EVERY_S = 0.3
TELL_EVERY = 25


class Massacre:
    """The runs, the killers, and what they did."""

    def __init__(
        self, stack: Stack, jetstream: JetStreamContext, folder: Path, rng: random.Random
    ) -> None:
        self._stack = stack
        self._jetstream = jetstream
        self._folder = folder
        self._rng = rng
        self._running: list[Following] = []
        self._on_one_fact: Counter[tuple[str, Service]] = Counter()
        self._began = time.monotonic()
        self.refs: list[RunRef] = []
        self.struck: Counter[str] = Counter()
        self.at_work: Counter[str] = Counter()
        """Kills of a service that a run waited for."""

    async def go_on(self, kills: Mapping[Service, int]) -> None:
        """Until every service died so often, and every run has ended."""
        with ExitStack() as traffic:
            killers = [
                asyncio.create_task(self._kill(service, times)) for service, times in kills.items()
            ]
            while self._running or not all(killer.done() for killer in killers):
                while len(self._running) < IN_FLIGHT and not all(k.done() for k in killers):
                    await self._submit(traffic)
                await asyncio.sleep(LOOK_EVERY_S)
                for following in list(self._running):
                    await self._look(following)
            await asyncio.gather(*killers)

    async def _submit(self, traffic: ExitStack) -> None:
        name = f"killed-{len(self.refs)}"
        steps, seed = 40, self._rng.randrange(1000)
        ref = await asyncio.to_thread(
            submit, self._stack, self._folder / name, name, max_steps=steps, seed=seed
        )
        self.refs.append(ref)
        self._running.append(Following(self._jetstream, ref))
        traffic.enter_context(Traffic(self._stack, ref.run, every_s=0.3))

    async def _look(self, following: Following) -> None:
        known = len(following.run.log)
        run = await following.look()
        if len(run.log) > known:
            for service in Service:
                del self._on_one_fact[(run.ref.run, service)]
        if run.closed or run.status == "held":
            self._running.remove(following)
            self._tell(f"{run.ref.run} {run.status}")

    async def _kill(self, service: Service, times: int) -> None:
        longest_s = LONGEST_WAIT_S if service in WORK else LONGEST_IDLE_S
        while self.struck[service] < times:
            pid = await self._answering(service)
            while self._tired(service):
                await asyncio.sleep(LOOK_EVERY_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(LONGEST_IDLE_S):
                    while not self._waited_for(service):
                        await asyncio.sleep(LOOK_EVERY_S)
            await asyncio.sleep(self._rng.uniform(0, longest_s))
            if not kill_9(pid):
                continue
            self.struck[service] += 1
            self.at_work[service] += self._waited_for(service)
            self._on_one_fact.update((each.run.ref.run, service) for each in self._running)
            if self.struck.total() % TELL_EVERY == 0:
                self._tell("")

    async def _answering(self, service: Service) -> int:
        """The process id of the service, once it answers."""
        while True:
            with suppress(nats.errors.Error, TimeoutError):
                answer = await self._jetstream._nc.request(subjects.health(service), timeout=1)
                return int(json.loads(answer.data)["pid"])
            await asyncio.sleep(ASK_EVERY_S)

    def _tired(self, service: Service) -> bool:
        """Whether a run in flight has seen this service die too often since its newest fact."""
        return any(
            self._on_one_fact[(each.run.ref.run, service)] >= MOST_ON_ONE_FACT
            for each in self._running
        )

    def _waited_for(self, service: Service) -> bool:
        """Whether the newest fact of a run gives the service work."""
        return any(
            name_of(each.run.log[-1]) in WORK.get(service, ())
            for each in self._running
            if each.run.log
        )

    def _tell(self, what: str) -> None:
        print(
            f"{time.monotonic() - self._began:6.0f} s  {self.struck.total()} kills, "
            f"{len(self.refs) - len(self._running)} of {len(self.refs)} runs ended  {what}",
            flush=True,
        )
