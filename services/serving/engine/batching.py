"""Which sequences run, and what one step computes: continuous batching with chunked prompts."""

from __future__ import annotations

from collections.abc import Sequence as Many
from typing import Protocol

import torch

from kernels.lora import SegmentPlan
from services.serving.engine.memory import PAGE
from services.serving.engine.model import Batch, Chunk
from services.serving.engine.sequence import Sequence

BACKGROUND_SHARE = 8
"""Background requests hold at most one slot in so many while users' requests run."""


class Shared(Protocol):
    """Where computed beginnings are found."""

    def covered(self, keys: Many[bytes]) -> int: ...


def admissible(
    waiting: Many[Sequence], running: Many[Sequence], free: int, shared: Shared
) -> list[Sequence]:
    """Who enters now.

    A request whose next uncached block another is computing waits for it. Beside users' requests,
    background ones (priority above 0: mirrored traffic) get an eighth of the slots: they neither
    crowd out a user nor starve under steady load.
    """
    users = [s for s in running if s.request.priority <= 0]  # what is paused is not waited for
    being_computed = {key for s in users if s.prefilling for key in s.keys[s.computed // PAGE :]}
    background_slots = max(1, (free + len(running)) // BACKGROUND_SHARE)
    chosen: list[Sequence] = []
    for sequence in waiting:
        if len(chosen) == free:
            break
        if sequence.request.priority > 0:
            entered = [*running, *chosen]
            background = sum(s.request.priority > 0 for s in entered)
            if background < len(entered) and background >= background_slots:
                break
        missing = sequence.keys[shared.covered(sequence.keys) :]
        if missing and missing[0] in being_computed:
            continue
        being_computed.update(missing)
        chosen.append(sequence)
    return chosen


def step_of(running: Many[Sequence], budget: int) -> tuple[Batch, list[tuple[Sequence, int, int]]]:
    """The next step over `running`: every decoding row, and prompt chunks up to `budget` tokens.

    Returns the batch and, per sequence in it, (sequence, first row, number of rows).
    """
    decoding = sum(not s.prefilling for s in running)
    budget = max(budget - decoding, 1)
    parts: list[tuple[Sequence, int]] = []
    for s in running:
        if not s.prefilling:
            parts.append((s, 1))
        elif budget > 0:
            length = min(s.length - s.computed, budget)
            budget -= length
            parts.append((s, length))
    parts.sort(key=lambda part: part[0].group)
    tokens: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    decode_rows: list[int] = []
    chunks: list[Chunk] = []
    groups: list[str] = []
    rows: list[tuple[Sequence, int, int]] = []
    for s, length in parts:
        row = len(tokens)
        if s.prefilling:
            tokens.extend(s.tokens[s.computed : s.computed + length])
            chunks.append(Chunk(row, length, s.slot, s.computed))
        else:
            tokens.append(s.generated[-1])
            decode_rows.append(row)
        positions.extend(range(s.computed, s.computed + length))
        slots.extend([s.slot] * length)
        groups.extend([s.group] * length)
        rows.append((s, row, length))
    plan = SegmentPlan.of(groups)
    layers = {s.group: s.weights.layers if s.weights else None for s, _ in parts}
    batch = Batch(
        torch.tensor(tokens),
        torch.tensor(positions),
        torch.tensor(slots),
        torch.tensor(decode_rows, dtype=torch.long),
        tuple(chunks),
        plan,
        tuple(layers[str(segment.adapter)] for segment in plan.segments),
    )
    return batch, rows
