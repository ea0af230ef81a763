"""Serving without a bus: one base and one adapter, from folders. `sluice gate` starts it.

`python -m services.serving.alone BASE ADAPTER` listens on a free port of 127.0.0.1 and prints one
JSON line (`url`, `key`) when the model is loaded. It ends when its standard input closes, so it
never outlives whoever started it. The models are called `base` and `candidate`; telemetry goes
nowhere.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import sys
from pathlib import Path

from contracts.telemetry import Feedback, Outcome
from services.serving.directory import Directory, KnownAdapter
from services.serving.engine.adapters import content_digest
from services.serving.engine.llama_engine import EngineConfig, LlamaEngine
from services.serving.http.app import create_app
from services.serving.keys import Keys
from services.serving.settings import ServingSettings
from shared.models import digest_cache
from shared.web import serving

CANDIDATE = "candidate"
TENANT = "alone"


class Nowhere:
    """A sink for outcomes that nobody watches."""

    async def emit(self, signal: Outcome | Feedback) -> None:
        del signal


async def serve(base: Path, adapter: Path, config: EngineConfig, cache: Path) -> None:
    """Answer for `base` and `adapter` until standard input ends."""
    engine = await asyncio.to_thread(LlamaEngine, base, config, label=base.name, digest_cache=cache)
    secret = secrets.token_urlsafe(24)
    directory = Directory(base_label=base.name)
    known = KnownAdapter(tenant=TENANT, adapter=content_digest(adapter))
    directory.know(CANDIDATE, known)
    api = create_app(
        engine=lambda: engine,
        directory=directory,
        keys=Keys(secret, dict),
        sink=Nowhere(),
        folders=lambda _digest: adapter,
    )
    try:
        port = _free_port()
        async with serving(api, host="127.0.0.1", port=port, setting="nothing: try again"):
            ready = {"url": f"http://127.0.0.1:{port}/v1", "key": f"{secret}.{TENANT}"}
            print(json.dumps(ready), flush=True)
            await asyncio.to_thread(sys.stdin.read)
    finally:
        await asyncio.to_thread(engine.close)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    base, adapter = (Path(word).resolve() for word in sys.argv[1:3])
    settings = ServingSettings()
    asyncio.run(serve(base, adapter, settings.engine(), digest_cache(settings.home.resolve())))


if __name__ == "__main__":
    main()
