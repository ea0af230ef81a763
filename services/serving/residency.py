"""Which registered adapters the engine holds, and how they get there.

A target names an artifact tree; the engine knows an adapter by the digest of its two files. Loading
is on demand, so an adapter the engine has dropped comes back with the next request for it.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from contracts.base import Digest
from contracts.serving import ServedAdapter
from services.serving.directory import Directory, Target
from services.serving.engine.port import AdapterInfo, AdapterNotLoaded, Engine


class AdapterFolders(Protocol):
    """Brings an adapter's artifact tree to a local folder. May block; called off the event loop."""

    def __call__(self, digest: Digest) -> Path: ...


class Residency:
    """Loads, finds, drops and pins the adapters of targets."""

    def __init__(self, engine: Engine, folders: AdapterFolders) -> None:
        self._engine = engine
        self._folders = folders
        self._loaded: dict[Digest, Digest] = {}
        self._loading: dict[Digest, asyncio.Lock] = {}

    def find(self, tree: Digest | None) -> AdapterInfo | None:
        """What the engine holds of an artifact tree; None if it holds nothing."""
        known = self._loaded.get(tree) if tree else None
        return next((a for a in self._engine.adapters() if a.digest == known), None)

    async def digest(self, target: Target) -> Digest | None:
        """The engine's digest of the target's adapter, loading it where it is not."""
        return None if target.adapter is None else (await self.load(target)).digest

    async def load(self, target: Target) -> AdapterInfo:
        """Load the target's adapter, or find it loaded.

        Raises:
            AdapterNotLoaded: the target is the base.
            AdapterRefused: the engine cannot take it.

        """
        tree = target.adapter
        if tree is None:
            raise AdapterNotLoaded(f"{target.model} has no adapter", mend="name an adapter")
        async with self._loading.setdefault(tree, asyncio.Lock()):
            found = self.find(tree)
            if found is None:
                folder = await asyncio.to_thread(self._folders, tree)
                found = await asyncio.to_thread(self._engine.load_adapter, folder, base=target.base)
                self._loaded[tree] = found.digest
            return found

    async def unload(self, target: Target) -> None:
        """Let the engine forget the target's adapter; requests that run keep it to their end."""
        if (found := self.find(target.adapter)) is not None:
            await asyncio.to_thread(self._engine.unload_adapter, found.digest)

    async def pin(self, target: Target) -> None:
        """Load, and keep it loaded. Raises what `load` does; AdapterRefused if too many stay."""
        while True:
            info = await self.load(target)
            with suppress(AdapterNotLoaded):  # it has made room for another meanwhile
                return await asyncio.to_thread(self._engine.pin_adapter, info.digest, True)

    async def unpin(self, target: Target) -> None:
        """It may make room for others again."""
        if (found := self.find(target.adapter)) is not None:
            with suppress(AdapterNotLoaded):  # it has made room for another meanwhile
                await asyncio.to_thread(self._engine.pin_adapter, found.digest, False)


def served(
    directory: Directory, residency: Residency, tenant: str, adapter_id: str
) -> ServedAdapter:
    """One of the tenant's adapters, and what the engine holds of it."""
    known = directory.adapters(tenant)[adapter_id]
    info = residency.find(known.adapter)
    return ServedAdapter(
        id=adapter_id,
        tenant=tenant,
        adapter=known.adapter,
        run=known.run,
        deployments=directory.deployments_of(tenant, adapter_id),
        resident=info is not None,
        pinned=info is not None and info.pinned,
        tier=info.tier if info else None,
        rank=info.rank if info else None,
        bytes=info.bytes if info else None,
        target_modules=info.target_modules if info else (),
    )


def resident(directory: Directory, residency: Residency) -> list[ServedAdapter]:
    """Every registered adapter that the engine holds, of all tenants."""
    return [
        found
        for tenant in directory.tenants()
        for adapter_id in directory.adapters(tenant)
        if (found := served(directory, residency, tenant, adapter_id)).resident
    ]
