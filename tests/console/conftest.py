"""The console as it runs: a real nats-server, a real HTTP server, a real client."""

from __future__ import annotations

import httpx
import nats
import pytest

from contracts.subjects import RunRef
from services.console.app import create_app
from services.console.settings import ConsoleSettings
from shared.messaging.embedded import free_port
from shared.messaging.provision import provision
from shared.messaging.runlog import RunLog


@pytest.fixture
async def jetstream(nats_server):
    connection = await nats.connect(nats_server.url, max_reconnect_attempts=-1)
    js = connection.jetstream(timeout=5)
    await provision(js)
    yield js
    await connection.close()


@pytest.fixture
def put(jetstream):
    """Append facts to a run."""

    async def append(ref: RunRef, *events) -> None:
        for event in events:
            run = await RunLog(jetstream).load(ref)
            await RunLog(jetstream).append(ref, event, cause=f"test-{run.version}", reopen=True)

    return append


@pytest.fixture
def console_settings() -> ConsoleSettings:
    return ConsoleSettings(port=free_port(), runs_kept=20)


@pytest.fixture
async def browser(jetstream, settings, console_settings):
    """An HTTP client of a running console."""
    url = f"http://127.0.0.1:{console_settings.port}"
    async with (
        create_app(settings, console_settings).running(),
        httpx.AsyncClient(base_url=url, timeout=10) as client,
    ):
        yield client
