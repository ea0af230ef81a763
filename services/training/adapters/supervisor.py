"""Runs the trainer as a process of its own: a crash, a leak or a full memory stays over there.

The trainer has its own session, dies with us, and holds a lock on its work folder. What it reports
becomes `Progress`; how it ends becomes a `TrainResult` or a `TrainFailure`. Where several processes
share a training, the first speaks for all, but for a named reason that stopped another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from contracts.progress import Progress
from services.training.adapters.crew import Crew, launch
from services.training.plan import PLAN_FILE, TrainerPlan
from services.training.reports import (
    Done,
    ExitCode,
    Failed,
    Step,
    TrainFailure,
    TrainResult,
    Working,
    ending_of,
    parse_report,
    progress_of,
)
from services.training.result import read_result
from shared.errors import LeaseHeld

LOG_FILE = "trainer.log"

OnProgress = Callable[[Progress], Awaitable[None]]


async def train(
    work: Path,
    plan: TrainerPlan,
    on_progress: OnProgress,
    cancelled: asyncio.Event,
    *,
    grace_s: float = 120.0,
) -> TrainResult | TrainFailure:
    """Carry out `plan` in `work`, resuming what an earlier call left there.

    Setting `cancelled` asks the trainer for a checkpoint and an end, and kills it after `grace_s`.
    If this coroutine is cancelled itself, the trainer is killed; its checkpoints stay.

    Raises LeaseHeld if another trainer is at work in this folder.
    """
    if (finished := await asyncio.to_thread(read_result, work)) is not None:
        return finished
    _write_plan(work, plan)
    with (work / LOG_FILE).open("ab") as log:
        crew = await launch(work, plan, log.fileno())
    stopper = asyncio.create_task(_stop_when(cancelled, crew, grace_s))
    others = [asyncio.create_task(_failure(process)) for process in crew.processes[1:]]
    try:
        last, step = await _follow(crew.processes[0], on_progress)
        returncode = await crew.wait()
        named = [failed for other in others if (failed := await other) is not None]
    finally:
        stopper.cancel()
        await crew.end()
    if returncode == ExitCode.BUSY:
        raise LeaseHeld(f"another trainer holds {work}", mend="wait for it to end")
    if not isinstance(last, Done):
        last = next(iter(named), None if crew.lost else last)
    return ending_of(
        returncode,
        last,
        step=step,
        cancelled=cancelled.is_set(),
        stderr_tail=_tail(work / LOG_FILE),
    )


def _write_plan(work: Path, plan: TrainerPlan) -> None:
    work.mkdir(parents=True, exist_ok=True)
    part = work / (PLAN_FILE + ".part")
    part.write_text(plan.model_dump_json(indent=1))
    part.replace(work / PLAN_FILE)


async def _follow(
    process: asyncio.subprocess.Process, on_progress: OnProgress
) -> tuple[Done | Failed | None, int]:
    """Pass progress on until the output ends; the final report and the last step seen."""
    assert process.stdout is not None
    last: Done | Failed | None = None
    numbers: Step | None = None
    step = 0
    async for line in process.stdout:
        report = parse_report(line)
        if isinstance(report, Working | Step):
            step = max(step, report.step)
            numbers = report if isinstance(report, Step) else numbers
            await on_progress(progress_of(report, numbers))
        elif report is not None:
            last = report
    return last, step


async def _failure(process: asyncio.subprocess.Process) -> Failed | None:
    """The named reason that stopped a process which is not the first, once its output ends."""
    last, _ = await _follow(process, _nobody)
    if isinstance(last, Failed) and last.failure.reason != "trainer_crashed":
        return last
    return None


async def _nobody(_: Progress) -> None:
    """Progress is the first process's."""


async def _stop_when(cancelled: asyncio.Event, crew: Crew, grace_s: float) -> None:
    await cancelled.wait()
    crew.terminate()
    await asyncio.sleep(grace_s)
    crew.kill()


def _tail(log: Path, size: int = 4000) -> str:
    try:
        with log.open("rb") as source:
            source.seek(max(0, log.stat().st_size - size))
            return source.read().decode(errors="replace")
    except OSError:
        return ""
