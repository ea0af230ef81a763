"""A real broker with the accounts of an installation: two tenants, every service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from shared.messaging.accounts import OPERATOR, Logins, tenant_user, write
from shared.messaging.copies import provision_tenant
from shared.messaging.embedded import EmbeddedNats, free_port
from shared.messaging.provision import provision

TENANTS = ("acme", "globex")


@dataclass(slots=True)
class Member:
    """A connection under one login, and what the broker complained about."""

    connection: Client
    violations: list[str] = field(default_factory=list)

    async def settled(self) -> None:
        """After everything sent has been judged: complaints come before the answer to a ping."""
        await self.connection.flush()
        await asyncio.sleep(0.05)


@dataclass(slots=True)
class Secured:
    """The broker, its logins, and ways in."""

    server: EmbeddedNats
    logins: Logins
    members: list[Client] = field(default_factory=list)

    async def enter(self, user: str) -> Member:
        login = self.logins.login(user)
        violations: list[str] = []

        async def complain(error: Exception) -> None:
            violations.append(str(error))

        connection = await nats.connect(
            self.server.url, user=login.user, password=login.password, error_cb=complain
        )
        self.members.append(connection)
        return Member(connection, violations)


@asynccontextmanager
async def secured_broker(folder: Path) -> AsyncIterator[Secured]:
    """Provisioned and running, until the block ends."""
    logins = Logins(folder)
    for tenant in TENANTS:
        logins.path(tenant_user(tenant))
    server = EmbeddedNats(
        folder / "nats",
        port=free_port(),
        write_accounts=lambda target: write(
            logins, target, tenants=logins.tenants(), programs=("labels",)
        ),
    )
    await server.start()
    secured = Secured(server, logins)
    try:
        operator = await secured.enter(OPERATOR)
        await provision(operator.connection.jetstream())
        for tenant in TENANTS:
            await provision_tenant(server.url, logins, tenant)
        yield secured
    finally:
        for connection in secured.members:
            await connection.close()
        server.stop()


@dataclass(slots=True)
class Ear:
    """Hears everything that is said in one account."""

    heard: list[tuple[str, bytes]] = field(default_factory=list)
    subscription: Any = None

    async def listen(self, connection: Client, subject: str = ">") -> Ear:
        async def hear(message: Msg) -> None:
            self.heard.append((message.subject, message.data))

        self.subscription = await connection.subscribe(subject, cb=hear)
        await connection.flush()
        return self

    def subjects(self, marked: bytes) -> set[str]:
        """Where messages with exactly this body came by."""
        return {subject for subject, body in self.heard if body == marked}
