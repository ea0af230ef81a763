"""Fixtures every area shares: a real nats-server, a scratch home."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.messaging.embedded import EmbeddedNats, free_port
from shared.settings import Settings


@pytest.fixture
async def nats_server(tmp_path: Path) -> AsyncIterator[EmbeddedNats]:
    """A real nats-server of this test's own."""
    server = EmbeddedNats(tmp_path / "nats", port=free_port())
    await server.start()
    yield server
    server.stop()


@pytest.fixture
def settings(tmp_path: Path, nats_server: EmbeddedNats) -> Settings:
    return Settings(home=tmp_path / "home", nats_url=nats_server.url)
