"""`sluice alerts` and `sluice remedies`: what monitoring says, and what it wants done."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

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

    _show("alerts", follow_alerts, "*" if every_tenant else tenant, deployment, follow, json)


def remedies(
    follow: Follow = False,
    deployment: Deployment = "*",
    tenant: Tenant = DEFAULT_TENANT,
    every_tenant: EveryTenant = False,
    json: Json = False,
) -> None:
    """Show what alerts want done, oldest first; with --follow, also what is to come."""
    from services.cli.alerting import follow_remedies

    _show("remedies", follow_remedies, "*" if every_tenant else tenant, deployment, follow, json)


def _show(
    noun: str,
    following: Callable[..., AsyncIterator[Any]],
    owner: str,
    deployment: str,
    follow: bool,
    json: bool,
) -> None:
    from services.cli.reporting import emit
    from services.cli.session import Session, perform

    async def work(opened: Session) -> None:
        count = 0
        async for found in following(opened, owner, deployment, follow=follow):
            count += 1
            if json:
                emit({"at": found.at.isoformat(), **found.said.model_dump(mode="json")})
            else:
                print(found.text(), flush=True)
        if not count and not json:
            print(f"no {noun}")

    perform(work)
