"""Who runs: bounded by the pool's pages, never by failing a request.

A request enters when a slot is free and the pool holds its tokens, its adapter, and one block more
of everyone who runs. Answers then grow page by page. When the pool runs out, the youngest gives its
pages up and waits at the head of the line; what it had is computed again, or found again where
nobody needed the pages meanwhile. The oldest always goes on. Used by the engine's thread.
"""

from __future__ import annotations

import heapq

from kernels.paging import PoolFull
from services.serving.engine.batching import admissible
from services.serving.engine.key_values import KeyValues, block_keys
from services.serving.engine.lifecycle import sweep
from services.serving.engine.memory import PAGE
from services.serving.engine.port import Overloaded
from services.serving.engine.residency import Residency
from services.serving.engine.sequence import Sequence
from services.serving.engine.waiting import WaitingLine


class Scheduler:
    """The running sequences, and how others come and go."""

    def __init__(
        self, line: WaitingLine, keys_values: KeyValues, adapters: Residency, *, slots: int
    ) -> None:
        self.line, self._kv, self._adapters = line, keys_values, adapters
        self.running: list[Sequence] = []
        self._free = list(range(slots))
        self.preemptions = 0

    def sweep(self) -> None:
        """Let go of what was cancelled or came too late."""
        sweep(self.running, self.line, self.retire, self._turn_away)

    def admit(self) -> None:
        """Let in who fits, in the order of the line; meanwhile fetch the next ones' adapters."""
        if not len(self.line):
            return
        waiting = self.line.snapshot()
        self._adapters.prefetch(
            [s.adapter for s in waiting[: len(self._free) + 1] if s.adapter is not None]
        )
        for sequence in admissible(waiting, self.running, len(self._free), self._kv):
            try:
                self._enter(sequence)
            except PoolFull as full:
                if self.running:
                    return
                self._turn_away(sequence)
                sequence.stream.push(
                    Overloaded(f"the pool has no pages for this request: {full}", retry_after_s=5.0)
                )
            except Exception as unreadable:  # its adapter: this request fails, no other
                self._turn_away(sequence)
                sequence.stream.push(unreadable)

    def reserve(self) -> None:
        """A page for every token the next step writes, from the youngest where there is none."""
        for sequence in sorted(self.running, key=_age):
            while sequence in self.running:
                try:
                    self._kv.grow(sequence.slot, sequence.computed + 1)
                    break
                except PoolFull:
                    self._preempt(max(self.running, key=_age))

    def publish(self, sequence: Sequence) -> None:
        """Share what is computed of the beginning that others may have too."""
        self._kv.publish(sequence.slot, sequence.keys, sequence.keyed, sequence.computed)

    def retire(self, sequence: Sequence) -> None:
        """The sequence runs no longer; its blocks stay for whoever goes on from them."""
        self._leave(sequence)
        self._part(sequence)

    def close(self) -> None:
        """Everyone ends as cancelled."""
        for sequence in list(self.running):
            self.retire(sequence)
            sequence.finish("cancelled")
        for sequence in self.line.snapshot():
            self._turn_away(sequence)
            sequence.finish("cancelled")

    def _enter(self, sequence: Sequence) -> None:
        if sequence.adapter is not None:
            sequence.weights = self._adapters.hold(sequence.adapter)
            if sequence.weights is None:
                return  # it is being read from disk
        slot = self._free[0]
        try:
            computed = self._kv.enter(
                slot, sequence.keys, sequence.keyed, sequence.length, spare=len(self.running)
            )
        except PoolFull:
            self._release_weights(sequence)
            raise
        heapq.heappop(self._free)
        self.line.admit(sequence)
        sequence.slot, sequence.computed = slot, computed
        if not sequence.generated:
            sequence.cached = computed
        self.running.append(sequence)

    def _preempt(self, sequence: Sequence) -> None:
        self.preemptions += 1
        self._leave(sequence)
        sequence.step_back()
        self.line.give_back(sequence)

    def _leave(self, sequence: Sequence) -> None:
        whole = sequence.computed // PAGE * PAGE
        keys = block_keys(sequence.request, sequence.tokens[:whole])
        self._kv.publish(sequence.slot, keys, whole, whole)
        self.running.remove(sequence)
        self._kv.leave(sequence.slot)
        heapq.heappush(self._free, sequence.slot)
        self._release_weights(sequence)

    def _release_weights(self, sequence: Sequence) -> None:
        if sequence.adapter is not None:
            self._adapters.release(sequence.adapter)
            sequence.weights = None

    def _turn_away(self, sequence: Sequence) -> None:
        self.line.take(sequence)
        self._part(sequence)

    def _part(self, sequence: Sequence) -> None:
        if sequence.adapter is not None:
            self._adapters.give_back(sequence.adapter)


def _age(sequence: Sequence) -> tuple[int, float]:
    """Background is younger than any user's request."""
    return sequence.request.priority, sequence.submitted
