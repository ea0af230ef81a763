"""`sluice provision`: make the broker match the topology."""

from __future__ import annotations

from typing import Annotated

import typer

from services.cli.options import Json


def provision(
    replicas: Annotated[int, typer.Option(min=1, max=5, help="Copies of each stream.")] = 1,
    json: Json = False,
) -> None:
    """Create or update every stream, consumer and bucket, and each tenant's streams.

    Safe to run again.
    """
    from contracts.topology import CONSUMERS, LEASES, STREAMS
    from services.cli.reporting import emit
    from services.cli.session import Session, perform
    from shared.messaging.accounts import Logins
    from shared.messaging.copies import provision_tenant
    from shared.messaging.login import without_login
    from shared.messaging.provision import provision as make

    async def work(opened: Session) -> None:
        await make(opened.js, replicas=replicas)
        logins = Logins(opened.settings.home)
        for tenant in logins.tenants():
            address = without_login(opened.settings.nats_url)
            await provision_tenant(address, logins, tenant, replicas=replicas)
        if json:
            emit(
                {
                    "nats_url": without_login(opened.settings.nats_url),
                    "streams": [row.name for row in STREAMS],
                    "consumers": [row.durable for row in CONSUMERS],
                    "buckets": [LEASES],
                }
            )
        else:
            print(
                f"{len(STREAMS)} streams, {len(CONSUMERS)} consumers and bucket {LEASES} "
                f"at {without_login(opened.settings.nats_url)}"
            )

    perform(work)
