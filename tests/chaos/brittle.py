"""The synthesis service whose handler dies on some messages, started again whenever it does.

    python -m tests.chaos.brittle URL FOLDER ACK_WAIT_S

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


def _segmentation_fault() -> None:
    ctypes.string_at(0)


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
        return RowsSynthesized(rows=NOTHING, requested=rows, accepted=rows, distinct_2=1.0)

    return App(bus)


def main(url: str, folder: Path) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    settings = Settings(home=folder / "home", nats_url=url)
    while True:
        child = os.fork()
        if child == 0:
            logging.disable()
            asyncio.run(serve(create_app(settings, folder)))
            os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    hurry(float(sys.argv[3]))
    main(sys.argv[1], Path(sys.argv[2]))
