"""Who waits for the engine, and in which turn: by priority, then fairly between tenants.

Each tenant has a counter of the tokens its admitted requests may take (prompt and answer); the one
with the smallest goes next. A tenant that had nothing waiting starts no lower than those who had,
so nobody saves up turns (virtual token counters, Sheng et al., OSDI 2024, algorithm 2).
"""

from __future__ import annotations

import bisect
import threading
from collections import Counter, deque
from itertools import groupby

from services.serving.engine.port import Overloaded
from services.serving.engine.sequence import Sequence


class WaitingLine:
    """Submitted requests, bounded. Safe from any thread."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._waiting: list[Sequence] = []
        """By priority; who ran already, then who never did; by arrival."""
        self._taken: Counter[str] = Counter()
        """Tenant → tokens."""
        self._last = ""
        """Who was served last."""
        self.changed = threading.Condition()
        self._news = False

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, sequence: Sequence) -> Sequence | None:
        """Join the line; returns whom that pushed out.

        A full line makes room for a tenant that has less in it than another: the newest request of
        the one with most leaves, as refused.

        Raises:
            Overloaded: the line is full, and nobody has more in it.

        """
        tenant = sequence.request.tenant
        with self.changed:
            waiting = Counter(s.request.tenant for s in self._waiting)
            pushed_out = None
            if len(self._waiting) >= self._capacity:
                pushed_out = self._make_room(tenant, waiting)
            if not waiting[tenant]:
                least = min(self._taken[other] for other in (waiting or (self._last,)))
                self._taken[tenant] = max(self._taken[tenant], least)
            bisect.insort(self._waiting, sequence, key=_place)
            self._tell()
            return pushed_out

    def _make_room(self, tenant: str, waiting: Counter[str]) -> Sequence:
        full = Overloaded(f"{len(self._waiting)} requests are waiting already", retry_after_s=2.0)
        greediest, most = waiting.most_common(1)[0]
        if most <= waiting[tenant] + 1:
            raise full
        theirs = [s for s in self._waiting if s.request.tenant == greediest and not s.admitted]
        if not theirs:
            raise full
        self._waiting.remove(theirs[-1])
        theirs[-1].stream.push(full)
        return theirs[-1]

    def give_back(self, sequence: Sequence) -> None:
        """Put a sequence that ran back, before those who never did; the line may be full."""
        with self.changed:
            bisect.insort(self._waiting, sequence, key=_place)

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
        """Leave the line, unserved."""
        with self.changed:
            self._waiting.remove(sequence)

    def admit(self, sequence: Sequence) -> None:
        """Leave the line to be served: its tokens count as its tenant's, once."""
        with self.changed:
            self._waiting.remove(sequence)
            if sequence.admitted:
                return
            sequence.admitted = True
            self._last = sequence.request.tenant
            self._taken[self._last] += _tokens(sequence)

    def snapshot(self) -> list[Sequence]:
        """Everybody who waits, in the order of their turns."""
        with self.changed:
            taken = Counter(self._taken)
            order: list[Sequence] = []
            for _, group in groupby(self._waiting, key=lambda s: _place(s)[:2]):
                line = list(group)
                order.extend(line if line[0].admitted else _in_turn(line, taken))
            return order


def _place(sequence: Sequence) -> tuple[int, bool, float]:
    return sequence.request.priority, not sequence.admitted, sequence.submitted


def _tokens(sequence: Sequence) -> int:
    return len(sequence.request.prompt) + max(sequence.limit, 0)


def _in_turn(waiting: list[Sequence], taken: Counter[str]) -> list[Sequence]:
    """`waiting` by turns; adds what they would take to `taken`."""
    lines: dict[str, deque[Sequence]] = {}
    for sequence in waiting:
        lines.setdefault(sequence.request.tenant, deque()).append(sequence)
    order: list[Sequence] = []
    while lines:
        tenant = min(lines, key=lambda name: taken[name])
        sequence = lines[tenant].popleft()
        order.append(sequence)
        taken[tenant] += _tokens(sequence)
        if not lines[tenant]:
            del lines[tenant]
    return order
