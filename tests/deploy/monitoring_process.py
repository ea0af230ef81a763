"""A monitoring service in a process of its own that has seen an ungrounded deployment."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import nats

from contracts import subjects
from shared.messaging.provision import provision
from tests.monitoring.provocations import provoked_by


@asynccontextmanager
async def monitoring(
    server, settings, **environment: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The running process. It is stopped with SIGTERM, and has ended when the block has."""
    connection = await nats.connect(server.url)
    await provision(connection.jetstream())
    for signal in provoked_by("grounding"):
        place = subjects.telemetry(signal.tenant, signal.deployment)
        await connection.publish(place, signal.model_dump_json().encode())
    await connection.flush()
    own = {"SLUICE_HOME": str(settings.home), "SLUICE_NATS_URL": server.url, **environment}
    service = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.monitoring", env={**os.environ, **own}
    )
    try:
        yield service
    finally:
        if service.returncode is None:
            service.terminate()
        await service.wait()
        await connection.close()
