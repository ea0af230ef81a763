"""Who has which page: holders are counted, contents are shared, and what nobody holds makes room.

Keys and values of a sequence and the weights of an adapter are *blocks*: pages that come and go
together. A block is *held* by the requests that use it. A block whose content was *published* under
a key stays when the last holder releases it: it is *idle*, can be found again by its key, and is
evicted, least recently used first, when pages are wanted and none are free. A held block is never
evicted. This is the bookkeeping alone; the bytes are the arena's (`kernels.paging.arena`).

One pool for both kinds is S-LoRA's unified paging (arXiv:2311.03285); shared blocks that are copied
by the first who writes are PagedAttention's (arXiv:2309.06180). Not safe from several threads.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

from kernels.paging.free import FreePages


class PoolFull(RuntimeError):
    """Even with every idle block evicted the pages are not there."""


@dataclass(slots=True, eq=False)
class Block:
    """Pages that are held, shared and evicted as one."""

    runs: tuple[int, ...]
    """How many neighbouring pages each part needs; 1 where any page will do."""
    pages: tuple[int, ...]
    """All of them, run after run."""
    filled: int = 0
    """Bytes in use, where the owner keeps count."""
    holders: int = 1
    keys: list[Hashable] = field(default_factory=list)
    """What its content was published as."""


@dataclass(frozen=True, slots=True)
class PoolUse:
    """Pages by their state; together they are all pages."""

    free: int
    idle: int
    held: int
    evictions: int
    """Blocks evicted so far."""

    @property
    def total(self) -> int:
        return self.free + self.idle + self.held


class PagePool:
    """Pages `[0, pages)`."""

    def __init__(
        self, pages: int, *, evicted: Callable[[Block, Sequence[Hashable]], None] | None = None
    ) -> None:
        self.pages = pages
        self._evicted = evicted
        """Told of a block and its keys, while its pages still hold its content."""
        self._free = FreePages(pages)
        self._idle: OrderedDict[Block, None] = OrderedDict()
        self._idle_pages = 0
        self._published: dict[Hashable, Block] = {}
        self._evictions = 0

    @property
    def available(self) -> int:
        """Pages that can be had: free ones and those of idle blocks."""
        return self._free.count + self._idle_pages

    @property
    def free(self) -> int:
        """Pages that can be had without evicting anything."""
        return self._free.count

    def use(self) -> PoolUse:
        held = self.pages - self.available
        return PoolUse(self._free.count, self._idle_pages, held, self._evictions)

    def allocate(self, runs: Sequence[int], *, filled: int = 0) -> Block:
        """A new block of `runs`, held once. Evicts idle blocks where pages are wanted.

        Raises:
            PoolFull: the pages are held, or idle and free ones are no neighbours.

        """
        wanted = sum(runs)
        if wanted > self.available:
            raise PoolFull(f"{wanted} pages wanted, {self.available} of {self.pages} can be had")
        taken: list[int] = []
        for number, length in enumerate(runs):
            while (start := self._free.take(length)) is None:
                if not self._idle:
                    self._return(runs[:number], taken)
                    raise PoolFull(f"no {length} neighbouring pages of {self.pages} can be had")
                self._evict(next(iter(self._idle)))
            taken.extend(range(start, start + length))
        return Block(tuple(runs), tuple(taken), filled)

    def covered(self, key: Hashable) -> bool:
        """Whether a block with this content is there."""
        return key in self._published

    def find(self, key: Hashable) -> Block | None:
        """The block published under `key`, held once more; None if there is none."""
        block = self._published.get(key)
        if block is not None:
            self.hold(block)
        return block

    def hold(self, block: Block) -> None:
        """One holder more."""
        if block.holders == 0:
            del self._idle[block]
            self._idle_pages -= len(block.pages)
        block.holders += 1

    def release(self, block: Block) -> None:
        """One holder less. The last leaves the block idle if it was published, else free.

        Raises:
            ValueError: nobody holds it.

        """
        if block.holders == 0:
            raise ValueError("a block that nobody holds cannot be released")
        block.holders -= 1
        if block.holders:
            return
        if block.keys:
            self._idle[block] = None
            self._idle_pages += len(block.pages)
        else:
            self._return(block.runs, block.pages)

    def publish(self, block: Block, key: Hashable) -> bool:
        """Others may find `block` by `key`; false if `key` names a block already."""
        if key in self._published:
            return self._published[key] is block
        self._published[key] = block
        block.keys.append(key)
        return True

    def forget(self, block: Block) -> None:
        """Nobody finds the block again. Its holders keep it; idle, it is free at once."""
        for key in block.keys:
            del self._published[key]
        block.keys.clear()
        if block.holders == 0:
            del self._idle[block]
            self._idle_pages -= len(block.pages)
            self._return(block.runs, block.pages)

    def own(self, block: Block) -> Block:
        """A block to write to, for a holder of `block`: itself, or a new one if others hold it.

        The new one is for the caller to copy to; the holder's share in `block` is released.

        Raises:
            PoolFull: there is no room for a copy; the holder keeps its share.

        """
        if block.holders == 1:
            return block
        copy = self.allocate(block.runs, filled=block.filled)
        self.release(block)
        return copy

    def _evict(self, block: Block) -> None:
        keys = tuple(block.keys)
        if self._evicted is not None:
            self._evicted(block, keys)
        self._evictions += 1
        self.forget(block)

    def _return(self, runs: Sequence[int], pages: Sequence[int]) -> None:
        at = 0
        for length in runs:
            self._free.give(pages[at], length)
            at += length
