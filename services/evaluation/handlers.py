"""Evaluation's steps: one consumer per gate, one verdict event each.

G2 is cheap and comes first, then G1 and G3; all others run side by side. A verdict that the job's
policy does not accept ends the run, and the step of a gate still under way is cancelled by it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from contracts.evaluation import GateJudged
from contracts.job import GateId
from contracts.run import Run
from services.evaluation.bench import Bench
from shared.messaging.steps import Step, Steps


def register(steps: Steps, bench: Bench) -> None:
    """Subscribe every gate to the fact it waits for."""
    gates: dict[GateId, Callable[[Step], Awaitable[GateJudged]]] = {
        "G1": bench.g1,
        "G2": bench.g2,
        "G3": bench.g3,
        "G4": bench.g4,
        "G5": bench.g5,
        "G6": bench.g6,
        "G7": bench.g7,
        "G12": bench.g12,
    }
    for gate, judge in gates.items():
        steps.on(gate.lower(), done=_settled(gate))(_while_it_matters(judge))


def _while_it_matters(
    judge: Callable[[Step], Awaitable[GateJudged]],
) -> Callable[[Step], Awaitable[GateJudged | None]]:
    """The gate's verdict; None, and its questions are called back, once the run has ended."""

    async def gate(step: Step) -> GateJudged | None:
        work = asyncio.ensure_future(judge(step))
        over = asyncio.ensure_future(step.cancelled.wait())
        try:
            await asyncio.wait({work, over}, return_when=asyncio.FIRST_COMPLETED)
            return await work if work.done() else None
        finally:
            over.cancel()
            work.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await work

    return gate


def _settled(gate: GateId) -> Callable[[Run, object], bool]:
    """Whether the run has this gate's verdict, or does not ask for it."""

    def settled(run: Run, _trigger: object) -> bool:
        asked = run.job is not None and gate in run.job.gates.required
        return gate in run.gates or not asked

    return settled
