"""Serving, wired: model, keys, artifacts and the HTTP application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI

from contracts.base import Digest
from contracts.telemetry import Outcome
from services.serving.directory import Directory
from services.serving.engine.llama_engine import LlamaEngine
from services.serving.execution import OutcomeSink
from services.serving.http.app import create_app
from services.serving.keys import Keys
from services.serving.settings import ServingSettings
from shared.artifacts import ArtifactStore


class Discard:
    """An outcome sink for serving on its own, without a bus."""

    async def emit(self, outcome: Outcome) -> None:
        return None


class StoredAdapters:
    """Adapter trees of the artifact store, materialized under one folder."""

    def __init__(self, store: ArtifactStore, root: Path) -> None:
        self._store, self._root = store, root

    def __call__(self, digest: Digest) -> Path:
        target = self._root / digest.removeprefix("sha256:")
        return self._store.fetch_tree(digest, target)


def build(
    settings: ServingSettings,
    *,
    directory: Directory | None = None,
    sink: OutcomeSink | None = None,
    keys: Keys | None = None,
) -> FastAPI:
    """The application; the model loads while it starts, `/healthz` says when it is ready."""
    label = settings.label or settings.base.resolve().name
    loaded: list[LlamaEngine] = []
    home = settings.shared.home
    app = create_app(
        engine=lambda: loaded[0] if loaded else None,
        directory=directory or Directory(base_label=label),
        keys=keys or Keys.load_or_create(settings.keys_path, tenants=settings.tenants),
        sink=sink or Discard(),
        folders=StoredAdapters(ArtifactStore(settings.shared.artifacts_url), home / "serving"),
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async def load() -> None:
            engine = await asyncio.to_thread(
                LlamaEngine, settings.base, settings.engine(), label=label
            )
            loaded.append(engine)

        loading = asyncio.create_task(load())
        yield
        await loading
        await asyncio.to_thread(loaded[0].close)

    app.router.lifespan_context = lifespan
    return app
