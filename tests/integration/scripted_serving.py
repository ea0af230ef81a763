"""Serving as a process with a scripted model: `python -m tests.integration.scripted_serving PORT`.

Router, trust, telemetry and HTTP are the real ones; the model answers everything at once.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import nats
import uvicorn
from transformers import AutoTokenizer

from benchmarks.candidates import HEALTHY, Candidate, Scripted
from services.serving.bus import Projection, TelemetrySink
from services.serving.directory import Directory
from services.serving.http.app import create_app
from services.serving.keys import Keys
from services.serving.trust import Trust
from shared.artifacts import ArtifactStore
from shared.settings import Settings

MODEL = "models/SmolLM2-135M-Instruct"


class Loading(Scripted):
    """Knows an adapter once it was asked to load it."""

    def load_adapter(self, folder: Path, *, base: str | None = None) -> Any:
        self.candidates[folder.name] = Candidate(name=folder.name, behaviour=HEALTHY)
        return super().load_adapter(folder, base=base)


async def main(port: int) -> None:
    """Serve until the process is killed."""
    settings = Settings()
    connection = await nats.connect(settings.nats_url, max_reconnect_attempts=-1)
    jetstream = connection.jetstream(timeout=10)
    engine = Loading(AutoTokenizer.from_pretrained(settings.home / MODEL))
    directory, sink = Directory(), TelemetrySink(lambda: jetstream)
    trust = Trust(
        ArtifactStore(settings.artifacts_url), settings.home / "keys/registry/signing-key.pub"
    )
    app = create_app(
        engine=lambda: engine,  # type: ignore[arg-type, return-value]
        directory=directory,
        keys=Keys("sk-service", lambda: {"acme": "sk-users"}),
        sink=sink,
        folders=Path,
    )
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning"))
    async with Projection(directory, lambda: jetstream, trust).running(), sink.running():
        await server.serve()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
