"""A service that is told to stop while its broker is away stops, and says what it left."""

import asyncio
import os
import signal
import sys

import nats
import pytest

from shared.messaging.embedded import free_port
from shared.messaging.provision import provision


@pytest.mark.req("P5")
async def test_sigterm_ends_a_service_whose_broker_is_away(nats_server, settings) -> None:
    connection = await nats.connect(nats_server.url)
    await provision(connection.jetstream())
    own = {"SLUICE_HOME": str(settings.home), "SLUICE_NATS_URL": nats_server.url}
    service = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.rollout", env={**os.environ, **own}
    )
    try:
        async with asyncio.timeout(60):
            while True:
                try:
                    await connection.request("sluice.v1.health.rollout", timeout=1)
                    break
                except (nats.errors.NoRespondersError, nats.errors.TimeoutError):
                    await asyncio.sleep(0.1)
        await connection.close()
        nats_server.kill()
        await asyncio.sleep(2)  # it has noticed, and tries to connect again
        service.send_signal(signal.SIGTERM)
        async with asyncio.timeout(40):
            await service.wait()
    finally:
        if service.returncode is None:
            service.kill()
            await service.wait()


@pytest.mark.req("P5")
async def test_sigterm_ends_a_service_that_waits_for_its_broker_to_start(tmp_path) -> None:
    own = {
        "SLUICE_HOME": str(tmp_path),
        "SLUICE_NATS_URL": f"nats://127.0.0.1:{free_port()}",
    }
    service = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.rollout",
        env={**os.environ, **own},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert service.stderr is not None
        async with asyncio.timeout(60):
            while b"Connect call failed" not in await service.stderr.readline():
                assert service.returncode is None
        service.send_signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            await service.communicate()
    finally:
        if service.returncode is None:
            service.kill()
            await service.wait()
