"""`sluice alerts` and `sluice remedies`: what monitoring says, and what it wants done."""

from __future__ import annotations

from typing import Annotated

import typer

from services.cli.options import DEFAULT_TENANT, Json, Tenant

Follow = Annotated[bool, typer.Option("--follow", "-f", help="Wait for new ones.")]
Deployment = Annotated[str, typer.Option(help="Only of this deployment.")]
EveryTenant = Annotated[bool, typer.Option("--all", help="Of every tenant.")]


def alerts(
    follow: Follow = False,
    deployment: Deployment = "*",
    tenant: Tenant = DEFAULT_TENANT,
    every_tenant: EveryTenant = False,
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


def remedies(
    follow: Follow = False,
    deployment: Deployment = "*",
    tenant: Tenant = DEFAULT_TENANT,
    every_tenant: EveryTenant = False,
    json: Json = False,
) -> None:
    """Show what alerts want done, oldest first; with --follow, also what is to come."""
    from services.cli.alerting import follow_remedies
    from services.cli.reporting import emit
    from services.cli.session import Session, perform

    owner = "*" if every_tenant else tenant

    async def work(opened: Session) -> None:
        count = 0
        async for found in follow_remedies(opened, owner, deployment, follow=follow):
            count += 1
            if json:
                emit({"at": found.at.isoformat(), **found.remedy.model_dump(mode="json")})
            else:
                print(found.text(), flush=True)
        if not count and not json:
            print("no remedies")

    perform(work)
