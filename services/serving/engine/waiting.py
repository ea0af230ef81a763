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
        """By priority, then arrival."""
        self._taken: Counter[str] = Counter()
        """Tenant → tokens."""
        self._last = ""
        """Who was served last."""
        self.changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, sequence: Sequence) -> None:
        """Join the line.

        A full line makes room for a tenant that has less in it than another: the newest request of
        the one with most leaves, as refused.

        Raises:
            Overloaded: the line is full, and nobody has more in it.

        """
        tenant = sequence.request.tenant
        with self.changed:
            waiting = Counter(s.request.tenant for s in self._waiting)
            if len(self._waiting) >= self._capacity:
                self._make_room(tenant, waiting)
            if not waiting[tenant]:
                least = min(self._taken[other] for other in (waiting or (self._last,)))
                self._taken[tenant] = max(self._taken[tenant], least)
            bisect.insort(self._waiting, sequence, key=lambda s: s.request.priority)
            self.changed.notify()

    def _make_room(self, tenant: str, waiting: Counter[str]) -> None:
        full = Overloaded(f"{len(self._waiting)} requests are waiting already", retry_after_s=2.0)
        greediest, most = waiting.most_common(1)[0]
        if most <= waiting[tenant] + 1:
            raise full
        newest = next(s for s in reversed(self._waiting) if s.request.tenant == greediest)
        self._waiting.remove(newest)
        newest.stream.push(full)

    def take(self, sequence: Sequence) -> None:
        """Leave the line, unserved."""
        with self.changed:
            self._waiting.remove(sequence)

    def admit(self, sequence: Sequence) -> None:
        """Leave the line to be served: its tokens count as its tenant's."""
        with self.changed:
            self._waiting.remove(sequence)
            self._last = sequence.request.tenant
            self._taken[self._last] += _tokens(sequence)

    def snapshot(self) -> list[Sequence]:
        """Everybody who waits, in the order of their turns."""
        with self.changed:
            taken = Counter(self._taken)
            order: list[Sequence] = []
            for _, group in groupby(self._waiting, key=lambda s: s.request.priority):
                order.extend(_in_turn(list(group), taken))
            return order


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
