from __future__ import annotations

import nats
import pytest

from shared.messaging.provision import provision


@pytest.fixture
async def jetstream(nats_server):
    """A provisioned broker of the test's own."""
    connection = await nats.connect(nats_server.url)
    js = connection.jetstream()
    await provision(js)
    yield js
    await connection.close()
