"""The page pool against its laws: no page twice, counts right, no leak, no held page evicted."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from kernels.paging import ALIGNMENT, Arena, Block, FreePages, Packing, PagePool, PoolFull

PAGES = 24
KEYS = st.integers(0, 7)
PAGE_BYTES = 64
RUNS = st.lists(st.integers(1, 4), min_size=1, max_size=3)


class Pool(RuleBasedStateMachine):
    """Every page carries the stamp of its block's content; nobody else may change it."""

    holds: Bundle[Block] = Bundle("holds")
    """One entry per holder: a block that is held twice is in it twice."""

    @initialize()
    def begin(self) -> None:
        self.pool = PagePool(PAGES, evicted=self._evicted)
        self.arena = Arena(PAGES, PAGE_BYTES)
        self.bytes = self.arena.as_pages(torch.uint8, (PAGE_BYTES,))
        self.held: dict[Block, int] = {}
        self.idle: list[Block] = []
        """Oldest use first."""
        self.stamps: dict[Block, int] = {}
        self.keys: dict[int, Block] = {}
        self.next_stamp = 0
        self.evictable: list[Block] = []
        """What one operation may evict, in this order."""

    def _evicted(self, block: Block, keys: Any) -> None:
        assert block is self.evictable.pop(0), "the least recently used goes first"
        assert block not in self.held
        assert [self.keys.pop(key) for key in keys] == [block] * len(keys)
        assert self._intact(block), "an evicted block can still be copied out"
        self.idle.remove(block)
        del self.stamps[block]

    def _intact(self, block: Block) -> bool:
        return bool((self.bytes[list(block.pages)] == self.stamps[block]).all())

    def _write(self, block: Block) -> None:
        self.next_stamp = self.next_stamp % 250 + 1
        self.stamps[block] = self.next_stamp
        self.bytes[list(block.pages)] = self.next_stamp

    @rule(target=holds, runs=RUNS)
    def allocate(self, runs: list[int]) -> Any:
        available, self.evictable = self.pool.available, list(self.idle)
        try:
            block = self.pool.allocate(runs)
        except PoolFull:
            assert sum(runs) > available or max(runs) > 1
            return multiple()
        assert len(block.pages) == sum(runs) <= available
        at = 0
        for length in runs:
            first = block.pages[at]
            assert block.pages[at : at + length] == tuple(range(first, first + length))
            at += length
        self.held[block] = 1
        self._write(block)
        return block

    @rule(target=holds, pages=st.integers(1, PAGES))
    def single_pages_are_had_whenever_there_are_enough(self, pages: int) -> Any:
        fits = pages <= self.pool.available
        block = self.allocate([1] * pages)
        assert isinstance(block, Block) == fits
        return block

    @rule(block=consumes(holds))
    def release(self, block: Block) -> None:
        self.pool.release(block)
        self.held[block] -= 1
        if self.held[block]:
            return
        del self.held[block]
        if block in self.keys.values():
            self.idle.append(block)
        else:
            del self.stamps[block]

    @rule(block=holds, key=KEYS)
    def publish(self, block: Block, key: int) -> None:
        assert self.pool.publish(block, key) == (self.keys.get(key, block) is block)
        self.keys.setdefault(key, block)

    @rule(block=consumes(holds), key=KEYS)
    def finish(self, block: Block, key: int) -> None:
        self.publish(block, key)
        self.release(block)

    @rule(target=holds, block=holds)
    def share(self, block: Block) -> Block:
        self.pool.hold(block)
        self.held[block] += 1
        return block

    @rule(target=holds, key=KEYS)
    def find(self, key: int) -> Any:
        block = self.pool.find(key)
        assert block is self.keys.get(key)
        if block is None:
            return multiple()
        if block in self.idle:
            self.idle.remove(block)
        self.held[block] = self.held.get(block, 0) + 1
        return block

    @rule(target=holds, block=consumes(holds))
    def write(self, block: Block) -> Block:
        """By one holder: the others must not see it."""
        self.evictable = list(self.idle)
        try:
            mine = self.pool.own(block)
        except PoolFull:
            assert self.held[block] > 1
            return block
        if mine is not block:
            assert self.held[block] > 1
            self.arena.copy(block, mine)
            assert bool((self.bytes[list(mine.pages)] == self.stamps[block]).all())
            self.held[block] -= 1
            self.held[mine] = 1
        else:
            assert self.held[block] == 1
        self._write(mine)
        return mine

    @rule(key=KEYS)
    def forget(self, key: int) -> None:
        block = self.keys.get(key)
        if block is None:
            return
        self.pool.forget(block)
        self.keys = {k: b for k, b in self.keys.items() if b is not block}
        if block in self.idle:
            self.idle.remove(block)
            del self.stamps[block]
        assert self.pool.find(key) is None

    @precondition(lambda self: self.idle)
    @rule()
    def a_block_nobody_holds_is_not_released(self) -> None:
        with pytest.raises(ValueError, match="nobody holds"):
            self.pool.release(self.idle[0])

    @invariant()
    def every_page_is_in_one_place(self) -> None:
        if not hasattr(self, "pool"):
            return
        blocks = [*self.held, *self.idle]
        pages = [page for block in blocks for page in block.pages]
        assert len(set(pages)) == len(pages)
        assert set(pages) <= set(range(PAGES))
        use = self.pool.use()
        assert use.total == PAGES
        assert use.held == sum(len(block.pages) for block in self.held)
        assert use.idle == sum(len(block.pages) for block in self.idle)
        assert {block: block.holders for block in self.held} == self.held

    @invariant()
    def nobody_writes_to_a_block_of_another(self) -> None:
        if hasattr(self, "pool"):
            assert all(self._intact(block) for block in (*self.held, *self.idle))

    def teardown(self) -> None:
        """Nothing leaks: with every hold released and every key forgotten all pages are one run."""
        if not hasattr(self, "pool"):
            return
        for block, holders in self.held.items():
            for _ in range(holders):
                self.pool.release(block)
        for block in set(self.keys.values()):
            self.pool.forget(block)
        assert self.pool.free == PAGES
        assert self.pool.allocate([PAGES]).pages == tuple(range(PAGES))


TestPool = pytest.mark.req("V2")(Pool.TestCase)
TestPool.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 9)), max_size=60))
@settings(max_examples=100, deadline=None)
def test_free_pages_are_the_longest_runs_there_are(steps: list[tuple[bool, int]]) -> None:
    free, expected, taken = FreePages(40), set(range(40)), []
    for takes, length in steps:
        if takes:
            start = free.take(length)
            longest = max((n for _, n in free.runs()), default=0)
            assert start is not None or longest < length
            if start is not None:
                taken.append((start, length))
                expected -= set(range(start, start + length))
        elif taken:
            start, count = taken.pop(length % len(taken))
            free.give(start, count)
            expected |= set(range(start, start + count))
        runs = free.runs()
        assert {p for start, n in runs for p in range(start, start + n)} == expected
        assert all(a + n < b for (a, n), (b, _) in pairwise(runs))
        assert free.count == len(expected)


def test_a_page_is_given_back_once() -> None:
    free = FreePages(4)
    assert free.take(2) == 2
    free.give(2, 1)
    for start, length in ((2, 1), (2, 2), (1, 3), (0, 1)):
        with pytest.raises(ValueError, match="already"):
            free.give(start, length)


SIZES = st.lists(st.integers(1, 40_000), min_size=1, max_size=60)


@given(SIZES, st.sampled_from([64, 2048, 12_288]))
@settings(max_examples=100, deadline=None)
def test_pieces_lie_whole_in_their_runs_and_next_to_each_other(
    sizes: list[int], page_bytes: int
) -> None:
    packing = Packing.of(sizes, page_bytes=page_bytes, alignment=ALIGNMENT)
    taken: dict[int, int] = dict.fromkeys(range(len(packing.runs)), 0)
    for size, (run, byte) in zip(sizes, packing.places, strict=True):
        assert byte % ALIGNMENT == 0
        assert byte == taken[run]
        taken[run] = byte + -(-size // ALIGNMENT) * ALIGNMENT
    assert [-(-length // page_bytes) for length in taken.values()] == list(packing.runs)
    assert packing.filled == sum(taken.values())


@pytest.mark.req("V2")
@pytest.mark.parametrize("itemsize", [2, 4])
@pytest.mark.parametrize("modules", [{"q", "v"}, {"q", "k", "v", "o", "gate", "up", "down"}])
@pytest.mark.parametrize("rank", [8, 11, 16, 32, 64])
def test_an_adapter_wastes_at_most_a_twentieth_of_its_pages(
    rank: int, modules: set[str], itemsize: int
) -> None:
    hidden, kv, wide = 576, 192, 1536  # SmolLM2-135M
    rows = {"q": hidden, "k": kv, "v": kv, "o": hidden, "gate": wide, "up": wide, "down": hidden}
    sizes = []
    for fused in ("qkv", "o", ("gate", "up"), ("down",)):
        found = [name for name in fused if name in modules]
        if found:
            columns = wide if "down" in found else hidden
            sizes += [rank * len(found) * columns * itemsize]
            sizes += [rank * rows[name] * itemsize for name in found]
    page_bytes = 2 * kv * 16 * itemsize
    packing = Packing.of(sizes * 30, page_bytes=page_bytes, alignment=ALIGNMENT)
    assert 1 - 30 * sum(sizes) / (sum(packing.runs) * page_bytes) <= 0.05
    assert len(packing.runs) > 1


def test_weights_are_read_back_from_where_they_were_put() -> None:
    arena = Arena(100, 128)
    tensors = [
        torch.randn(7, 5),
        torch.randn(3).to(torch.bfloat16),
        torch.arange(900, dtype=torch.int64),
    ]
    packing = Packing.of([t.nbytes for t in tensors], page_bytes=128, alignment=ALIGNMENT)
    block = PagePool(100).allocate(packing.runs, filled=packing.filled)
    for placed, tensor in zip(arena.place(tensors, packing, block), tensors, strict=True):
        assert torch.equal(placed, tensor)
        assert placed.data_ptr() % ALIGNMENT == 0
        assert placed.is_contiguous()


def test_pages_are_as_long_as_their_alignment_wants() -> None:
    with pytest.raises(ValueError, match="multiple of 64"):
        Arena(2, 100)
