"""The adapters an engine holds, by content digest."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import replace
from typing import Generic, Protocol, TypeVar

from contracts.base import Digest
from services.serving.engine.port import AdapterInfo, AdapterNotLoaded, AdapterRefused


class Held(Protocol):
    """Whatever an engine makes of an adapter."""

    @property
    def info(self) -> AdapterInfo: ...


A = TypeVar("A", bound=Held)


class AdapterShelf(Generic[A]):
    """Loaded adapters; the least recently used that is not pinned makes room. Safe from any thread.

    Whoever runs a request holds its adapter object, so dropping one here never touches it.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._loaded: OrderedDict[Digest, A] = OrderedDict()
        self._pinned: set[Digest] = set()
        self._lock = threading.Lock()

    def put(self, adapter: A) -> None:
        with self._lock:
            self._loaded[adapter.info.digest] = adapter
            self._loaded.move_to_end(adapter.info.digest)
            while len(self._loaded) > self._capacity:
                del self._loaded[next(d for d in self._loaded if d not in self._pinned)]

    def get(self, digest: Digest) -> A:
        """Raises AdapterNotLoaded."""
        with self._lock:
            if digest not in self._loaded:
                raise AdapterNotLoaded(f"adapter {digest} is not loaded", mend="load it first")
            self._loaded.move_to_end(digest)
            return self._loaded[digest]

    def drop(self, digest: Digest) -> None:
        with self._lock:
            self._loaded.pop(digest, None)
            self._pinned.discard(digest)

    def pin(self, digest: Digest, pinned: bool) -> None:
        """Raises AdapterNotLoaded, or AdapterRefused if nothing could make room any more."""
        with self._lock:
            if digest not in self._loaded:
                raise AdapterNotLoaded(f"adapter {digest} is not loaded", mend="load it first")
            if not pinned:
                self._pinned.discard(digest)
            elif len(self._pinned | {digest}) >= self._capacity:
                raise AdapterRefused(
                    f"{len(self._pinned)} of {self._capacity} adapters are pinned, "
                    "the last place is for the others",
                    mend="unpin one, or raise SLUICE_SERVING_MAX_ADAPTERS",
                )
            else:
                self._pinned.add(digest)

    def list(self) -> tuple[AdapterInfo, ...]:
        with self._lock:
            return tuple(
                replace(adapter.info, pinned=digest in self._pinned)
                for digest, adapter in self._loaded.items()
            )
