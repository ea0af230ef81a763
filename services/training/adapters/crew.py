"""The processes of one training on this machine, each a child of ours.

Several are started by torchrun's variables, from which accelerate makes their process group. An
agent between us would hold torch in memory, end the trainers by its own patience rather than by
ours, and make one exit code of all. One that ends badly leaves the others waiting for its part of
a sum; so they are ended too, and so are those that the first one leaves behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from services.training.plan import TrainerPlan
from shared.messaging.embedded import free_port
from shared.waiting import ASLEEP

ROOT = Path(__file__).resolve().parents[3]
TRAINER = (sys.executable, "-m", "services.training.adapters.trainer")
PATIENCE_S = 30.0
"""The others end by themselves within this, once one of them has failed."""
_LINE_LIMIT = 1 << 20


class Crew:
    """Running trainers; the first reports and writes."""

    def __init__(self, processes: Sequence[asyncio.subprocess.Process]) -> None:
        self.processes = processes
        self._lost: int | None = None
        self._killed = False
        self._watch = asyncio.create_task(self._end_together())

    def terminate(self) -> None:
        """Ask all for a checkpoint and an end."""
        for process in self._running():
            with contextlib.suppress(ProcessLookupError):
                process.terminate()

    def kill(self) -> None:
        """End all, now."""
        self._killed = True
        for process in self._running():
            with contextlib.suppress(ProcessLookupError):
                process.kill()

    async def wait(self) -> int:
        """When all have ended: the first one's exit code, or that of a killed one it died of."""
        await self._watch
        first = await self.processes[0].wait()
        return self._lost if self._lost is not None and first != 0 else first

    async def end(self) -> None:
        """Kill all, and wait until they are gone."""
        self.kill()
        await self.wait()

    @property
    def lost(self) -> bool:
        """Whether a signal, not of ours, ended one that is not the first."""
        return self._lost is not None

    async def _end_together(self) -> None:
        tasks = {asyncio.create_task(process.wait()): process for process in self.processes}
        first, waiting = next(iter(tasks)), set(tasks)
        patience_s: float | None = None
        while waiting:
            ended, waiting = await asyncio.wait(
                waiting, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED
            )
            for one in ended - {first}:
                if one.result() < 0 and not self._killed:
                    self._lost = one.result()
            if not ended or first in ended:
                self.kill()
            if any(one.result() for one in ended):
                patience_s = PATIENCE_S

    def _running(self) -> list[asyncio.subprocess.Process]:
        return [process for process in self.processes if process.returncode is None]


async def launch(work: Path, plan: TrainerPlan, log: int) -> Crew:
    """Start the plan's trainers; their errors go to the open file `log`."""
    shared = (
        os.environ
        | ASLEEP
        | {
            "OMP_NUM_THREADS": str(plan.threads),
            "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
        }
    )
    started: list[asyncio.subprocess.Process] = []
    try:
        for variables in places(plan.processes):
            started.append(await _start(work, shared | variables, log))
    except BaseException:
        for process in started:
            process.kill()
        raise
    return Crew(started)


def places(processes: int) -> list[dict[str, str]]:
    """The variables that tell each of several processes its place; none where there is one."""
    if processes == 1:
        return [{}]
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    size = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    return [meeting | size | {"RANK": str(n), "LOCAL_RANK": str(n)} for n in range(processes)]


async def _start(
    work: Path, environment: Mapping[str, str], log: int
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *TRAINER,
        str(Path.cwd() / work),
        "--parent",
        str(os.getpid()),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=log,
        env=environment,
        start_new_session=True,
        limit=_LINE_LIMIT,
    )
