"""Where adapters are: in the pool, ready to run; in host memory, checked and cast; or on disk.

The pool's pages are shared with keys and values. An adapter moves up when a request is to run with
it: from disk to host memory in the background while the request waits, from there to the pool when
it starts. It moves down, least recently used first, when room is wanted. What runs, and what is
pinned, holds its pages. An adapter is in one place at a time: 500 in the pool are there once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from contracts.base import Digest
from kernels.paging import ALIGNMENT, Block, Packing
from services.serving.engine.adapters import LoadedAdapter, pieces, rebuilt
from services.serving.engine.memory import Memory
from services.serving.engine.port import AdapterInfo, AdapterNotLoaded, AdapterRefused, Tier


@dataclass(slots=True, eq=False)
class Kept:
    """An adapter that can be asked for. Changed under the memory's lock alone."""

    info: AdapterInfo
    folder: Path
    packing: Packing
    host: LoadedAdapter | None = None
    placed: LoadedAdapter | None = None
    """Its weights in the pool's pages."""
    block: Block | None = None
    users: int = 0
    """Requests that wait or run."""
    listed: bool = True
    reading: bool = False
    failure: Exception | None = None
    """Why the last reading from disk failed; the next request to start is told."""

    def __post_init__(self) -> None:
        self.say()

    def say(self) -> None:
        """Bring `info` up to date."""
        tier: Tier = "pool" if self.placed else "host" if self.host else "disk"
        self.info = replace(self.info, tier=tier)


class Residency:
    """Loaded adapters in their three tiers. Safe from any thread."""

    def __init__(
        self,
        memory: Memory,
        read: Callable[[Path], LoadedAdapter],
        *,
        host_bytes: int,
        most: int,
        changed: Callable[[], None],
    ) -> None:
        self._memory, self._read = memory, read
        self._host_bytes, self._most = host_bytes, most
        self._changed = changed
        """Called when an adapter has come from disk."""
        self._kept: OrderedDict[Digest, Kept] = OrderedDict()
        self._hosted: OrderedDict[Kept, None] = OrderedDict()
        self._placed: dict[Block, Kept] = {}
        self._wanted: frozenset[Kept] = frozenset()
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="adapters")
        memory.demote = self._demote

    def load(self, folder: Path) -> AdapterInfo:
        """Read a folder; into the pool if that takes nobody's place, else into host memory.

        Raises:
            AdapterRefused: it cannot be served as it is, or not within the pool.

        """
        adapter = self._read(folder)
        memory = self._memory
        packing = Packing.of(
            [piece.nbytes for piece in pieces(adapter.layers)],
            page_bytes=memory.arena.page_bytes,
            alignment=ALIGNMENT,
        )
        with memory.lock:
            self._refuse_beyond_pool(
                sum(packing.runs), f"the adapter has {adapter.info.bytes} bytes"
            )
            kept = self._kept.get(adapter.info.digest)
            if kept is None:
                kept = self._kept[adapter.info.digest] = Kept(adapter.info, folder, packing)
            self._kept.move_to_end(adapter.info.digest)
            if not (kept.placed or kept.host):
                kept.folder = folder
                self._take_in(kept, adapter)
                if sum(packing.runs) <= memory.pool.free:
                    memory.pool.release(self._place(kept))
            for old in [k for k in self._kept.values() if not k.info.pinned]:
                if len(self._kept) <= self._most or old is kept:
                    break
                self._drop(old)
            return kept.info

    def borrow(self, digest: Digest) -> Kept:
        """The adapter for a request, which gives it back when it ends. Raises AdapterNotLoaded."""
        with self._memory.lock:
            kept = self._get(digest)
            self._kept.move_to_end(digest)
            kept.users += 1
            return kept

    def give_back(self, kept: Kept) -> None:
        with self._memory.lock:
            kept.users -= 1
            if not (kept.users or kept.listed):
                self._discard(kept)

    def hold(self, kept: Kept) -> LoadedAdapter | None:
        """Its weights, not to be moved until `release`; None while they are on disk.

        Raises:
            PoolFull: there are no pages for it now.
            AdapterRefused: it could not be read again from disk.

        """
        with self._memory.lock:
            if kept.failure is not None:
                failure, kept.failure = kept.failure, None
                raise failure
            if kept.block is not None:
                self._memory.pool.hold(kept.block)
            elif kept.host is not None:
                self._place(kept)
            return kept.placed

    def release(self, kept: Kept) -> None:
        with self._memory.lock:
            assert kept.block is not None
            self._memory.pool.release(kept.block)

    def pin(self, digest: Digest, pinned: bool) -> None:
        """Keep an adapter in the pool, or no longer.

        Raises:
            AdapterNotLoaded: there is none with this digest.
            AdapterRefused: with it pinned the pool could not hold the longest sequence beside the
                largest adapter; or it could not be read again from disk.
            PoolFull: running requests hold the pages it needs.

        """
        with self._memory.lock:
            kept = self._get(digest)
            if kept.info.pinned == pinned:
                return
            if not pinned:
                self.release(kept)
                kept.info = replace(kept.info, pinned=False)
                return
            on_disk = not (kept.placed or kept.host)
        # read without the lock, which every step of the engine takes
        adapter = self._again(kept) if on_disk else None
        with self._memory.lock:
            kept = self._get(digest)
            if kept.info.pinned:
                return
            self._refuse_beyond_pool(
                sum(kept.packing.runs), f"pinning {digest}", largest=self._largest()
            )
            if self.hold(kept) is None:
                self._take_in(kept, adapter or self._again(kept))
                self.hold(kept)
            kept.info = replace(kept.info, pinned=True)

    def drop(self, digest: Digest) -> None:
        """Forget an adapter. Requests that wait or run keep it to their end."""
        with self._memory.lock:
            kept = self._kept.get(digest)
            if kept is not None:
                if kept.info.pinned:
                    self.pin(digest, False)
                self._drop(kept)

    def list(self) -> tuple[AdapterInfo, ...]:
        with self._memory.lock:
            return tuple(kept.info for kept in self._kept.values())

    def prefetch(self, waiting: Sequence[Kept]) -> None:
        """Read from disk, in the background, what the first waiting requests will run with.

        As many as host memory holds, one at least; they stay there until requests take them.
        """
        with self._memory.lock:
            room, wanted = self._host_bytes, set[Kept]()
            for kept in dict.fromkeys(waiting):
                if kept.placed is not None:
                    continue
                room -= kept.info.bytes
                if wanted and room < 0:
                    break
                wanted.add(kept)
                if kept.host is None and not kept.reading and kept.failure is None:
                    kept.reading = True
                    self._reader.submit(self._fetch, kept)
            self._wanted = frozenset(wanted)

    def close(self) -> None:
        self._reader.shutdown(cancel_futures=True)

    @property
    def filled(self) -> tuple[int, int]:
        """(bytes of weights in the pool, bytes of the pages they take)."""
        with self._memory.lock:
            blocks = list(self._placed)
            pages = sum(len(block.pages) for block in blocks)
            return sum(b.filled for b in blocks), pages * self._memory.arena.page_bytes

    @property
    def host_bytes(self) -> int:
        """Bytes of the adapters in host memory."""
        with self._memory.lock:
            return sum(kept.info.bytes for kept in self._hosted)

    # Under the lock, but for `_fetch`.

    def _get(self, digest: Digest) -> Kept:
        kept = self._kept.get(digest)
        if kept is None:
            raise AdapterNotLoaded(f"adapter {digest} is not loaded", mend="load it first")
        return kept

    def _largest(self) -> int:
        return max(sum(kept.packing.runs) for kept in self._kept.values())

    def _refuse_beyond_pool(self, pages: int, what: str, *, largest: int = 0) -> None:
        """The longest sequence must always find room beside what is pinned."""
        pinned = sum(sum(k.packing.runs) for k in self._kept.values() if k.info.pinned)
        taken = pages + pinned + largest + self._memory.context_pages
        pool = self._memory.pool.pages
        if taken > pool:
            needed = taken * self._memory.arena.page_bytes
            raise AdapterRefused(
                f"{what}: with the pinned adapters and the longest sequence the pool would have to "
                f"hold {needed} bytes, it has {pool * self._memory.arena.page_bytes}",
                mend=f"unpin adapters, or set SLUICE_SERVING_POOL_MB to {-(-needed >> 20)} or more",
            )

    def _take_in(self, kept: Kept, adapter: LoadedAdapter) -> None:
        kept.host = adapter
        self._hosted[kept] = None
        kept.say()
        over = sum(k.info.bytes for k in self._hosted) - self._host_bytes
        for old in [k for k in self._hosted if k is not kept and k not in self._wanted]:
            if over <= 0:
                break
            over -= old.info.bytes
            self._leave_host(old)

    def _leave_host(self, kept: Kept) -> None:
        kept.host = None
        self._hosted.pop(kept, None)
        kept.say()

    def _place(self, kept: Kept) -> Block:
        """From host memory to the pool; its block is held once. Raises PoolFull."""
        assert kept.host is not None
        memory, host = self._memory, kept.host
        block = memory.pool.allocate(kept.packing.runs, filled=kept.info.bytes)
        memory.pool.publish(block, kept)
        placed = memory.arena.place(list(pieces(host.layers)), kept.packing, block)
        kept.placed = LoadedAdapter(host.info, rebuilt(host.layers, iter(placed)))
        kept.block = block
        self._placed[block] = kept
        self._leave_host(kept)
        return block

    def _demote(self, block: Block) -> None:
        kept = self._placed.get(block)
        if kept is None:
            return
        placed = self._leave_pool(kept)
        if kept.info.bytes <= self._host_bytes:
            copies = (piece.clone() for piece in pieces(placed.layers))
            self._take_in(kept, LoadedAdapter(placed.info, rebuilt(placed.layers, copies)))

    def _leave_pool(self, kept: Kept) -> LoadedAdapter:
        placed, block = kept.placed, kept.block
        assert placed is not None
        assert block is not None
        del self._placed[block]
        kept.placed, kept.block = None, None
        kept.say()
        return placed

    def _drop(self, kept: Kept) -> None:
        del self._kept[kept.info.digest]
        kept.listed = False
        if not kept.users:
            self._discard(kept)

    def _discard(self, kept: Kept) -> None:
        if kept.block is not None:
            block = kept.block
            self._leave_pool(kept)
            self._memory.pool.forget(block)
        self._leave_host(kept)

    def _again(self, kept: Kept) -> LoadedAdapter:
        adapter = self._read(kept.folder)
        if adapter.info.digest != kept.info.digest:
            raise AdapterRefused(
                f"{kept.folder} no longer holds adapter {kept.info.digest}",
                mend="load the folder again under its new digest",
            )
        return adapter

    def _fetch(self, kept: Kept) -> None:
        try:
            adapter, failure = self._again(kept), None
        except Exception as error:  # told to the request that waits for it
            adapter, failure = None, error
        with self._memory.lock:
            kept.reading, kept.failure = False, failure
            if adapter is not None and not (kept.placed or kept.host):
                self._take_in(kept, adapter)
        self._changed()
