"""A supervisor: starts programs, restarts the ones that die, ends them all.

Every program is its own process group on a leash of this process. When a program dies, what is left
of its group is killed before it is started again, so that no orphan works beside its successor. The
pause before a restart doubles with each quick death and starts over after a steady while.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from shared.leash import leashed

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
STEADY_S = 30.0
GRACE_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What to run."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to this process's environment."""
    longest_pause_s: float | None = None
    """Before a restart; None for LONGEST_PAUSE_S. Less for a program that all others wait for."""


@dataclass(slots=True)
class Watched:
    """A program under supervision."""

    program: Program
    log: Path
    pid: int | None = None
    restarts: int = 0
    exit_code: int | None = None
    """Of its last end; negative for a signal."""
    first_end: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it has ended at least once."""
    refused: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it has ended with EX_CONFIG: as configured, no restart can help."""

    def last_lines(self, count: int = 5) -> list[str]:
        """The end of its log."""
        try:
            return self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-count:]
        except OSError:
            return []


def pause_s(quick_deaths: int, longest_s: float | None = None) -> float:
    """Seconds before the restart that follows the `quick_deaths`-th quick death in a row."""
    longest_s = LONGEST_PAUSE_S if longest_s is None else longest_s
    return float(min(longest_s, FIRST_PAUSE_S * 2 ** min(max(0, quick_deaths - 1), 10)))


class Supervisor:
    """Keeps programs running until it is stopped."""

    def __init__(self, logs: Path, *, on_restart: Callable[[Watched, float], None]) -> None:
        """`on_restart(watched, pause)` hears of every death before the restart."""
        self._logs = logs
        self._on_restart = on_restart
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.watched: dict[str, Watched] = {}
        logs.mkdir(parents=True, exist_ok=True)

    def start(self, program: Program) -> Watched:
        """Start `program` and keep it running."""
        watched = Watched(program, self._logs / f"{program.name}.log")
        self.watched[program.name] = watched
        self._tasks[program.name] = asyncio.create_task(self._keep(watched), name=program.name)
        return watched

    async def stop(self, names: Sequence[str] | None = None, *, grace_s: float = GRACE_S) -> None:
        """End these programs (all, by default) together: SIGTERM, then SIGKILL after `grace_s`."""
        chosen = list(self._tasks) if names is None else [n for n in names if n in self._tasks]
        tasks = [self._tasks.pop(name) for name in chosen]
        for task in tasks:
            task.cancel(f"{grace_s}")
        await asyncio.gather(*tasks, return_exceptions=True)

    def restart(self, name: str) -> None:
        """End a program, so that it is started again."""
        if (pid := self.watched[name].pid) is not None:
            _signal_group(pid, signal.SIGTERM)

    async def _keep(self, watched: Watched) -> None:
        quick_deaths = 0
        while True:
            began = time.monotonic()
            await self._run_once(watched)
            steady = time.monotonic() - began >= STEADY_S
            quick_deaths = 1 if steady else quick_deaths + 1
            pause = pause_s(quick_deaths, watched.program.longest_pause_s)
            watched.restarts += 1
            watched.first_end.set()
            if watched.exit_code == os.EX_CONFIG:
                watched.refused.set()
            self._on_restart(watched, pause)
            await asyncio.sleep(pause)

    async def _run_once(self, watched: Watched) -> None:
        program = watched.program
        with watched.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *leashed(list(program.argv)),
                env={**os.environ, **program.env},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        watched.pid = process.pid
        try:
            watched.exit_code = await process.wait()
        except asyncio.CancelledError as stop:
            await _end(process, float(str(stop.args[0]) if stop.args else GRACE_S))
            watched.exit_code = process.returncode
            raise
        finally:
            _signal_group(process.pid, signal.SIGKILL)
            watched.pid = None


async def _end(process: asyncio.subprocess.Process, grace_s: float) -> None:
    _signal_group(process.pid, signal.SIGTERM)
    try:
        async with asyncio.timeout(grace_s):
            await process.wait()
    except TimeoutError:
        _signal_group(process.pid, signal.SIGKILL)
        await process.wait()


def _signal_group(leader: int, sign: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, sign)
