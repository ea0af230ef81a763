"""Lets in tenants that get a login while the platform runs.

`sluice credentials TENANT` leaves a login in the home; here the broker is started again with it and
the tenant's streams are made. A reload would not do: nats-server connects an account that a reload
adds with the streams only at the next one (seen with 2.15.1). Services reconnect by themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import nats.errors
from nats.js.errors import Error as JetStreamError

from shared.messaging.accounts import Logins
from shared.messaging.copies import provision_tenant
from shared.messaging.embedded import EmbeddedNats

EVERY_S = 0.5


async def watch_tenants(
    logins: Logins,
    server: EmbeddedNats,
    restart: Callable[[], None],
    known: Iterable[str],
    tell: Callable[[str], None],
) -> None:
    """Until cancelled: an account and its streams for every tenant that has a login."""
    let_in = set(known)
    while True:
        await asyncio.sleep(EVERY_S)
        fresh = sorted(set(logins.tenants()) - let_in)
        if not fresh:
            continue
        server.prepare()
        restart()
        for tenant in fresh:
            await _let_in(server, logins, tenant)
            let_in.add(tenant)
            tell(f"tenant {tenant} may log in to the broker")


async def _let_in(server: EmbeddedNats, logins: Logins, tenant: str) -> None:
    while True:
        try:
            return await provision_tenant(server.url, logins, tenant)
        except (nats.errors.Error, JetStreamError, OSError, TimeoutError):
            await asyncio.sleep(EVERY_S)  # it is still the old one, or starting
