"""Keys and values of running sequences, in pages, and beginnings that several sequences share.

Tokens are cut into blocks of `PAGE`; a block's key covers the tenant, the adapter and every token
up to its end, so equal keys mean equal keys-and-values. A computed block is published under its key
and used by whoever has the same beginning: nothing is copied, but for a block that is shared only
in part, which the newcomer copies before it writes to the rest. Used by the engine's thread.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Protocol

import torch

from kernels.paging import Block, PoolFull
from services.serving.engine.memory import PAGE, Memory


class Owned(Protocol):
    """Whose tokens they are, and what computes them."""

    @property
    def tenant(self) -> str: ...

    @property
    def adapter(self) -> str | None: ...


def block_keys(owner: Owned, tokens: Sequence[int]) -> list[bytes]:
    """One key per block of `tokens`, the last may be short; each depends on all tokens before.

    And on the tenant: how fast a prompt is answered must not say what another tenant asked.
    """
    whose = json.dumps([owner.tenant, owner.adapter])
    key = hashlib.sha256(whose.encode()).digest()
    keys = []
    for start in range(0, len(tokens), PAGE):
        text = ",".join(map(str, tokens[start : start + PAGE])).encode()
        key = hashlib.sha256(key + text).digest()
        keys.append(key)
    return keys


class KeyValues:
    """Slot → pages of its sequence."""

    def __init__(self, memory: Memory, *, context: int, slots: int, sharing: bool = True) -> None:
        shape = memory.shape
        self._memory, self._sharing = memory, sharing
        self._runs = (1,) * shape.layers
        self._blocks: list[list[Block]] = [[] for _ in range(slots)]
        self.pages = memory.arena.as_pages(memory.dtype, (2, shape.kv_heads, PAGE, shape.head_dim))
        self.tables = torch.zeros(shape.layers, slots, -(-context // PAGE), dtype=torch.int32)
        """(layer, slot, block) → page."""
        self._tables = self.tables.numpy()
        self.hits = 0
        """Blocks that were shared."""
        self.misses = 0
        """Blocks of prompts that had to be computed."""
        self.copies = 0
        """Blocks that were copied before they were written to."""

    def covered(self, keys: Sequence[bytes]) -> int:
        """How many leading `keys` are there to be shared."""
        if not self._sharing:
            return 0
        with self._memory.lock:
            return next(
                (n for n, key in enumerate(keys) if not self._memory.pool.covered(key)), len(keys)
            )

    def enter(
        self, slot: int, keys: Sequence[bytes], keyed: int, length: int, *, spare: int
    ) -> int:
        """Pages for a sequence of `length` tokens, the first `keyed` of which `keys` name.

        Leaves room for one block more of each of `spare` sequences. Returns how many leading tokens
        need not be computed.

        Raises:
            PoolFull: the pages are not there; the slot is empty as before.

        """
        memory = self._memory
        with memory.lock:
            shared = self.covered(keys)
            try:
                for key in keys[:shared]:
                    block = memory.pool.find(key)
                    assert block is not None  # covered, and held by nobody else's leave
                    self._append(slot, block)
                computed = min(shared * PAGE, keyed)
                if computed % PAGE:
                    self._own_last(slot)
                self.grow(slot, length)
                if memory.pool.available < spare * len(self._runs):
                    raise PoolFull("running sequences need what is left")
            except PoolFull:
                self.leave(slot)
                raise
            self.hits += shared
            self.misses += len(keys) - shared
            return computed

    def grow(self, slot: int, length: int) -> None:
        """Pages for `length` tokens in all. Raises PoolFull; what the slot has it keeps."""
        blocks = self._blocks[slot]
        if len(blocks) * PAGE >= length:
            return
        with self._memory.lock:
            while len(blocks) * PAGE < length:
                self._append(slot, self._memory.pool.allocate(self._runs))

    def publish(self, slot: int, keys: Sequence[bytes], keyed: int, computed: int) -> None:
        """Let others share the blocks that `keys` name, as far as they are computed."""
        if not self._sharing:
            return
        with self._memory.lock:
            for index, key in enumerate(keys):
                if min((index + 1) * PAGE, keyed) > computed:
                    return
                self._memory.pool.publish(self._blocks[slot][index], key)

    def leave(self, slot: int) -> None:
        """Release the slot's pages. The end goes first: a beginning is of use without its end."""
        with self._memory.lock:
            for block in reversed(self._blocks[slot]):
                self._memory.pool.release(block)
        self._blocks[slot].clear()

    def room(self, slot: int) -> int:
        """Positions the slot has pages for."""
        return len(self._blocks[slot]) * PAGE

    def _append(self, slot: int, block: Block) -> None:
        self._tables[:, slot, len(self._blocks[slot])] = block.pages
        self._blocks[slot].append(block)

    def _own_last(self, slot: int) -> None:
        shared = self._blocks[slot].pop()
        try:
            mine = self._memory.pool.own(shared)
        except PoolFull:
            self._blocks[slot].append(shared)
            raise
        if mine is not shared:
            self._memory.arena.copy(shared, mine)
            self.copies += 1
        self._append(slot, mine)
