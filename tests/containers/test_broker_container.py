"""The broker's own configuration, in a container that is killed."""

from __future__ import annotations

from pathlib import Path

import nats
import pytest

from contracts import subjects
from shared.messaging import accounts
from shared.messaging.provision import provision
from tests.containers.conftest import NATS_IMAGE, free_port

CONFIG = Path(__file__).parents[2] / "deploy" / "nats" / "nats.conf"

pytestmark = [pytest.mark.xdist_group("containers"), pytest.mark.timeout(120)]


@pytest.mark.req("P3")
async def test_a_killed_broker_container_keeps_what_it_acknowledged(engine, tmp_path) -> None:
    from testcontainers.core.container import DockerContainer

    port = free_port()
    accounts.prepare(tmp_path / "home", tmp_path / "accounts.conf", ["acme"])
    login = accounts.Logins(tmp_path / "home").login(accounts.OPERATOR)
    url = f"nats://{login}@127.0.0.1:{port}"
    volume = engine.volumes.create()
    box = (
        DockerContainer(NATS_IMAGE)
        .with_command("-c /etc/nats/nats.conf")
        .with_volume_mapping(str(CONFIG), "/etc/nats/nats.conf", "ro")
        .with_volume_mapping(
            str(tmp_path / "accounts.conf"), "/etc/nats/accounts/accounts.conf", "ro"
        )
        .with_volume_mapping(volume.name, "/data", "rw")
        .with_bind_ports(4222, port)
    )
    try:
        with box:
            published = await publish(url, 200)
            box.get_wrapped_container().kill("SIGKILL")
            box.get_wrapped_container().start()
            connection = await connect(url)
            jetstream = connection.jetstream()
            assert (await jetstream.stream_info("TELEMETRY")).state.messages == published
            await connection.close()
    finally:
        volume.remove(force=True)


async def connect(url: str) -> nats.NATS:
    return await nats.connect(url, max_reconnect_attempts=60, reconnect_time_wait=0.5)


async def publish(url: str, count: int) -> int:
    connection = await connect(url)
    jetstream = connection.jetstream()
    await provision(jetstream)
    for number in range(count):
        await jetstream.publish(subjects.telemetry("acme", "boxed"), b"%d" % number)
    await connection.close()
    return count
