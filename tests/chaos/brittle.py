"""The synthesis service whose handler dies on some messages, started again whenever it does.

    python -m tests.chaos.brittle URL FOLDER ACK_WAIT_S [GROUP...]

A run named `poison-…` kills its process, one named `hungry-…` takes memory without end. Service
processes enter the control groups GROUP (`cgroup.procs` files); without one, the limit on their
address space is HUNGRY_BYTES above what they have.

Every service process is a fork of this one, so that thousands of deaths fit into a test. Each death
leaves a line `<run>` in FOLDER/deaths.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from contracts import topology
from contracts.base import Service
from contracts.synthesis import RowsSynthesized
from shared.messaging import delivery, provision
from shared.messaging.broker import Bus
from shared.messaging.host import App, serve
from shared.messaging.steps import Step, Steps
from shared.settings import Settings
from tests.chaos.worker import DURABLE, NOTHING, note, shorten_clocks

AT_ONCE = 2000
LONGEST_DELAY_S = 1.0
HUNGRY_BYTES = 64 << 20


def _segmentation_fault() -> None:
    ctypes.string_at(0)


def _take_memory() -> None:
    taken = []
    while True:
        taken.append(bytearray(b"x") * (8 << 20))


DEATHS: tuple[Callable[[], object], ...] = (
    lambda: os._exit(1),
    lambda: os.kill(os.getpid(), signal.SIGKILL),
    os.abort,
    _segmentation_fault,
)


def is_poison(run: str) -> bool:
    return run.startswith("poison-")


def hurry(ack_wait_s: float) -> None:
    """Short clocks, and room for a flood of deliveries that nobody acknowledged."""
    shorten_clocks(ack_wait_s)
    rows = tuple(
        replace(row, max_ack_pending=AT_ONCE) if row.durable == DURABLE else row
        for row in topology.CONSUMERS
    )
    topology.CONSUMERS = provision.CONSUMERS = rows
    delivery.MAX_DELAY_S = LONGEST_DELAY_S


def create_app(settings: Settings, folder: Path) -> App:
    bus = Bus(Service.SYNTHESIS, settings)
    steps = Steps(bus)

    @steps.on("synthesize")
    async def synthesize(step: Step) -> RowsSynthesized:
        run, rows = step.run.ref.run, step.trigger.event.rows
        if is_poison(run):
            note(folder / "deaths", run)
            DEATHS[rows % len(DEATHS)]()
        if run.startswith("hungry-"):
            note(folder / "deaths", run)
            _take_memory()
        return RowsSynthesized(rows=NOTHING, requested=rows, accepted=rows, distinct_2=1.0)

    return App(bus)


def confine(groups: list[str]) -> None:
    """The limit on this process's memory."""
    for group in groups:
        Path(group).write_text(str(os.getpid()))
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    most = mapped + (HUNGRY_BYTES * 8 if groups else HUNGRY_BYTES)  # a net below the group's limit
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def main(url: str, folder: Path, groups: list[str]) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    settings = Settings(home=folder / "home", nats_url=url)
    while True:
        child = os.fork()
        if child == 0:
            logging.disable()
            confine(groups)
            asyncio.run(serve(create_app(settings, folder)))
            os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    hurry(float(sys.argv[3]))
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[4:])
