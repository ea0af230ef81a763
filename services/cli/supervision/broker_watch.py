"""Brings the broker back after a full disk.

A write that finds no space puts a stream of nats-server into an error it leaves only by a restart,
or makes it give up JetStream altogether: with space again, every publish still fails. Its health
page says so (503, "write error" or "not enabled"), so the supervisor restarts it once the disk has
room; nothing acknowledged is lost.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING

from shared.messaging.embedded import EmbeddedNats

if TYPE_CHECKING:
    import httpx

EVERY_S = 2.0
ENOUGH = 2
"""Bad answers in a row before a restart: a broker that starts has no JetStream for a moment."""
_CANNOT_WRITE = ("write error", "not enabled")
ROOM_BYTES = 16 << 20
"""Free space that makes another start worth while."""


async def watch_broker(
    server: EmbeddedNats, restart: Callable[[], None], tell: Callable[[str], None]
) -> None:
    """Until cancelled: `restart` when a stream cannot be written and the disk has room again."""
    import httpx

    told, seen = False, 0
    async with httpx.AsyncClient(timeout=EVERY_S, trust_env=False, verify=False) as client:
        while True:
            await asyncio.sleep(EVERY_S)
            if not await _cannot_write(client, server.health_url):
                told, seen = False, 0
                continue
            seen += 1
            if seen < ENOUGH:
                continue
            if shutil.disk_usage(server.folder).free >= ROOM_BYTES:
                tell("nats could not write; there is space again, so it is started anew")
                restart()
                seen = 0
            elif not told:
                tell(f"nats cannot write: the disk of {server.folder} is full; free space to go on")
                told = True


async def _cannot_write(client: httpx.AsyncClient, health_url: str) -> bool:
    import httpx

    try:
        answer = await client.get(health_url)
    except httpx.HTTPError:
        return False  # it is down or starting: the supervisor's business
    ill = answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
    return ill and any(words in answer.text for words in _CANNOT_WRITE)
