"""Which sequences run, and what one step computes: continuous batching with chunked prompts."""

from __future__ import annotations

import bisect
import threading
from collections.abc import Sequence as Many
from typing import Protocol

import torch

from kernels.lora import SegmentPlan
from services.serving.engine.memory import PAGE
from services.serving.engine.model import Batch, Chunk
from services.serving.engine.port import Overloaded
from services.serving.engine.sequence import Sequence

BACKGROUND_SHARE = 8
"""Background requests hold at most one slot in so many while users' requests run."""


class WaitingLine:
    """Submitted requests by priority, then arrival; bounded. Safe from any thread."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._waiting: list[Sequence] = []
        self.changed = threading.Condition()
        self._news = False

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, sequence: Sequence) -> None:
        """Raises Overloaded when the line is full."""
        with self.changed:
            if len(self._waiting) >= self._capacity:
                raise Overloaded(
                    f"{len(self._waiting)} requests are waiting already", retry_after_s=2.0
                )
            bisect.insort(self._waiting, sequence, key=_turn)
            self._tell()

    def give_back(self, sequence: Sequence) -> None:
        """Put a sequence that ran in its old place; the line may be full."""
        with self.changed:
            bisect.insort(self._waiting, sequence, key=_turn)

    def wake(self) -> None:
        """Have whoever rests look again."""
        with self.changed:
            self._tell()

    def rest(self, timeout_s: float) -> None:
        """Until a request came, or `wake` was called, since the last rest."""
        with self.changed:
            if not self._news:
                self.changed.wait(timeout_s)
            self._news = False

    def _tell(self) -> None:
        self._news = True
        self.changed.notify()

    def take(self, sequence: Sequence) -> None:
        with self.changed:
            self._waiting.remove(sequence)

    def snapshot(self) -> list[Sequence]:
        with self.changed:
            return list(self._waiting)


def _turn(sequence: Sequence) -> tuple[int, float]:
    return sequence.request.priority, sequence.submitted


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
