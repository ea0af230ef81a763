"""Fixtures every area shares: a real nats-server, a scratch home."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from shared.messaging.embedded import EmbeddedNats, free_port
from shared.settings import Settings

# Read by Triton at its first import, which other libraries may do: its kernels run on the CPU here.
os.environ.setdefault("TRITON_INTERPRET", "1")

# A busy machine is no defect of a law.
hypothesis_settings.register_profile(
    "shared", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis_settings.load_profile("shared")


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
