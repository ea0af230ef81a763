"""A worker of the synthesis service in a process of its own: a long job in small, kept units.

    python -m tests.chaos.worker URL FOLDER ACK_WAIT_S

Each unit leaves a line `<run> <pid> <unit>` in FOLDER/units, each beginning of a step a line
`<run> <pid> <unit it begins at>` in FOLDER/starts: what the tests count. Clocks are shortened alike
here and at the broker, so that a job of twenty acknowledgement waits ends within a test.
"""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import replace
from pathlib import Path

from contracts import topology
from contracts.base import Service
from contracts.synthesis import RowsSynthesized
from shared.messaging import leases, provision, steps
from shared.messaging.broker import Bus
from shared.messaging.delivery import ServiceStops
from shared.messaging.host import App, serve
from shared.messaging.steps import Step, Steps
from shared.settings import Settings

DURABLE = "synthesis-synthesize"
UNIT_S = 0.1
NOTHING = "sha256:" + "0" * 64


def shorten_clocks(ack_wait_s: float) -> None:
    """Acknowledgement wait and lease of the job's consumer, in this process."""
    rows = tuple(
        replace(row, ack_wait_s=ack_wait_s) if row.durable == DURABLE else row
        for row in topology.CONSUMERS
    )
    topology.CONSUMERS = provision.CONSUMERS = rows
    leases.TTL_S = provision.TTL_S = ack_wait_s
    steps.RENEW_EVERY_S = ack_wait_s / 4


def done(folder: Path, run: str) -> int:
    """Units of the run that are kept."""
    return sum(line.split()[0] == run for line in read(folder / "units"))


def read(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def note(path: Path, *words: object) -> None:
    with path.open("a") as out:
        out.write(" ".join(map(str, words)) + "\n")


def create_app(settings: Settings, folder: Path) -> App:
    """The service with its one step; the trigger says how many units the job has."""
    bus = Bus(Service.SYNTHESIS, settings)

    async def work(step: Step) -> RowsSynthesized:
        run = step.run.ref.run
        rows = step.trigger.event.rows
        first = done(folder, run)
        note(folder / "starts", run, os.getpid(), first)
        for unit in range(first, rows):
            await asyncio.sleep(UNIT_S)
            if bus.stopping.is_set():
                raise ServiceStops("stopping")
            if step.cancelled.is_set():
                raise ServiceStops("the lease is lost")
            note(folder / "units", run, os.getpid(), unit)
        return RowsSynthesized(rows=NOTHING, requested=rows, accepted=rows, distinct_2=1.0)

    Steps(bus).on("synthesize")(work)
    return App(bus)


if __name__ == "__main__":
    shorten_clocks(float(sys.argv[3]))
    place = Path(sys.argv[2])
    asyncio.run(serve(create_app(Settings(home=place / "home", nats_url=sys.argv[1]), place)))
