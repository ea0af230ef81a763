"""The whole chain of gates outside a run, in the order of a run, and how long each takes.

G2, G1 and G3 one after the other, all others side by side. Other than in a run, a failed gate calls
nothing back: whoever asks for the chain wants every verdict.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from contracts.job import GateId
from contracts.measure import VerdictName
from services.evaluation.gates.judgement import Judgement

FIRST: tuple[GateId, ...] = ("G2", "G1", "G3")
BESIDE: tuple[GateId, ...] = ("G4", "G5", "G6", "G7", "G12")


@dataclass(frozen=True, slots=True)
class Timed:
    """A gate's verdict and how long it was asked for."""

    judged: Judgement
    duration_s: float


async def timed(judge: Callable[[GateId], Awaitable[Judgement]], gate: GateId) -> Timed:
    """One gate."""
    began = time.monotonic()
    return Timed(await judge(gate), time.monotonic() - began)


async def chain(judge: Callable[[GateId], Awaitable[Judgement]]) -> tuple[Timed, ...]:
    """Every gate. The first error ends all."""
    first = [await timed(judge, gate) for gate in FIRST]
    beside = [asyncio.ensure_future(timed(judge, gate)) for gate in BESIDE]
    try:
        return (*first, *await asyncio.gather(*beside))
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)


def together(verdicts: Sequence[VerdictName]) -> VerdictName:
    """Passed only if all passed; failed if one failed."""
    if "failed" in verdicts:
        return "failed"
    return "passed" if set(verdicts) == {"passed"} else "inconclusive"
