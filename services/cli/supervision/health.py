"""Whether services are up: a core NATS request to each, and HTTP where one serves it.

`python -m services.cli.supervision.health SERVICE` asks one, for container health checks.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import nats
import nats.errors
from nats.aio.client import Client

from contracts import subjects
from shared.messaging.login import credentials
from shared.settings import Settings

ASK_TIMEOUT_S = 2.0


async def ask(connection: Client, service: str) -> dict[str, Any] | None:
    """What the service says of itself, or None if it does not answer."""
    try:
        reply = await connection.request(subjects.health(service), b"", timeout=ASK_TIMEOUT_S)
        answer = json.loads(reply.data)
    except (nats.errors.Error, TimeoutError, ValueError):
        return None
    return answer if isinstance(answer, dict) else None


async def http_ok(url: str) -> bool:
    """Whether a GET of `url` is answered with a 2xx."""
    import httpx

    try:
        async with httpx.AsyncClient(timeout=ASK_TIMEOUT_S, trust_env=False) as client:
            return (await client.get(url)).is_success
    except httpx.HTTPError:
        return False


async def wait_until_healthy(
    connection: Client, service: str, url: str | None, *, every_s: float = 0.3
) -> dict[str, Any]:
    """Until the service answers, and its `url` does. Returns what it says of itself."""
    while True:
        answer = await ask(connection, service)
        if answer is not None and (url is None or await http_ok(url)):
            return answer
        await asyncio.sleep(every_s)


async def _answers(service: str) -> bool:
    settings = Settings()
    connection = await nats.connect(
        settings.nats_url, connect_timeout=2, allow_reconnect=False, **credentials(settings)
    )
    try:
        return await ask(connection, service) is not None
    finally:
        await connection.close()


if __name__ == "__main__":
    try:
        sys.exit(0 if asyncio.run(_answers(sys.argv[1])) else 1)
    except (OSError, nats.errors.Error) as error:
        sys.exit(f"the broker does not answer: {error!r}")
