"""Trap 6 of `test_traps`: a permission violation is asynchronous, and a service ends by it."""

from __future__ import annotations

import asyncio

import pytest

from shared.messaging import broker as broker_module
from shared.messaging.broker import EX_CONFIG
from shared.messaging.embedded import free_port
from tests.integration.broker_processes import start_server, start_service


@pytest.mark.req("P6")
async def test_a_service_that_may_not_publish_its_facts_exits(tmp_path) -> None:
    port = free_port()
    config = tmp_path / "nats.conf"
    config.write_text(f"""
        listen: "127.0.0.1:{port}"
        authorization {{ users: [{{ user: synthesis, password: x, permissions: {{
            publish: {{ deny: ["sluice.v1.run.*.*.curation.>"] }} }} }}] }}
    """)
    server = start_server(config)
    try:
        await broker_module.wait_for_broker(f"nats://127.0.0.1:{port}")
        url = f"nats://synthesis:x@127.0.0.1:{port}"
        allowed = start_service(url, 'await app.bus.connection.publish("sluice.v1.x", b"")')
        forged = start_service(
            url,
            'await app.bus.connection.publish("sluice.v1.run.acme.r1.curation.curated", b"")',
        )
        assert await asyncio.to_thread(forged.wait, 20) == EX_CONFIG
        assert allowed.poll() is None
        allowed.kill()
        allowed.wait()
    finally:
        server.kill()
        server.wait()
