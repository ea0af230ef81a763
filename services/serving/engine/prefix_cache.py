"""Keys and values of prompt beginnings that were computed before.

Prompts are cut into blocks of fixed length; a block's key covers the adapter and every token up to
its end, so equal keys mean equal keys-and-values. Blocks are copied out of and into slots, kept
within a byte budget, least recently used dropped first. Used by the engine's thread alone.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor

BLOCK = 32


def block_keys(adapter: str | None, tokens: Sequence[int]) -> list[bytes]:
    """One key per whole block of `tokens`; each depends on all tokens before it."""
    key = hashlib.sha256((adapter or "base").encode()).digest()
    keys = []
    for start in range(0, len(tokens) - BLOCK + 1, BLOCK):
        text = ",".join(map(str, tokens[start : start + BLOCK])).encode()
        key = hashlib.sha256(key + text).digest()
        keys.append(key)
    return keys


class PrefixCache:
    """Block key → keys and values, (layer, 2, K, BLOCK, D)."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._blocks: OrderedDict[bytes, Tensor] = OrderedDict()
        self.hits = 0
        """Blocks served."""
        self.misses = 0
        """Blocks that had to be computed."""

    @property
    def size_bytes(self) -> int:
        return self._bytes

    def covered(self, keys: Sequence[bytes]) -> int:
        """How many leading `keys` are cached."""
        for index, key in enumerate(keys):
            if key not in self._blocks:
                return index
        return len(keys)

    def restore(self, keys: Sequence[bytes], cache: Tensor, slot: int) -> int:
        """Copy the cached blocks of `keys` into a slot; returns the number of tokens covered."""
        count = self.covered(keys)
        self.hits += count
        self.misses += len(keys) - count
        for index, key in enumerate(keys[:count]):
            self._blocks.move_to_end(key)
            cache[:, :, slot, :, index * BLOCK : (index + 1) * BLOCK] = self._blocks[key]
        return count * BLOCK

    def keep(self, keys: Sequence[bytes], upto: int, cache: Tensor, slot: int) -> None:
        """Copy a slot's finished blocks (those that end at or before token `upto`) out."""
        for index, key in enumerate(keys[: upto // BLOCK]):
            if key in self._blocks:
                continue
            block = cache[:, :, slot, :, index * BLOCK : (index + 1) * BLOCK].clone()
            size = block.numel() * block.element_size()
            if size > self._max_bytes:
                return
            self._blocks[key] = block
            self._bytes += size
            while self._bytes > self._max_bytes:
                _, dropped = self._blocks.popitem(last=False)
                self._bytes -= dropped.numel() * dropped.element_size()
