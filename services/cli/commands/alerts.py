"""`sluice alerts`: the public alert stream."""

from __future__ import annotations

from typing import Annotated

import typer

from services.cli.options import DEFAULT_TENANT, Json, Tenant


def alerts(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for new ones.")] = False,
    deployment: Annotated[str, typer.Option(help="Only of this deployment.")] = "*",
    tenant: Tenant = DEFAULT_TENANT,
    every_tenant: Annotated[bool, typer.Option("--all", help="Of every tenant.")] = False,
    json: Json = False,
) -> None:
    """Show alerts, oldest first; with --follow, also those to come."""
    from services.cli.alerting import follow_alerts
    from services.cli.reporting import emit
    from services.cli.session import Session, perform

    owner = "*" if every_tenant else tenant

    async def work(opened: Session) -> None:
        count = 0
        async for found in follow_alerts(opened, owner, deployment, follow=follow):
            count += 1
            if json:
                emit({"at": found.at.isoformat(), **found.alert.model_dump(mode="json")})
            else:
                print(found.text(), flush=True)
        if not count and not json:
            print("no alerts")

    perform(work)
