"""`sluice watch`: a run, live, to its end."""

from __future__ import annotations

import typer

from services.cli.options import DEFAULT_TENANT, Json, RunName, Tenant


def watch(run: RunName, tenant: Tenant = DEFAULT_TENANT, json: Json = False) -> None:
    """Follow a run until it ends.

    Exit code: 0 promoted, declined or diagnosed, 3 halted, rejected or failed, 4 rolled back,
    5 cancelled.
    """
    from services.cli.following import follow_run
    from services.cli.screen import screen
    from services.cli.session import Session, perform, run_ref

    ref = run_ref(run, tenant)

    async def work(opened: Session) -> int:
        with screen(json=json) as view:
            return await follow_run(opened, ref, view)

    if code := perform(work):
        raise typer.Exit(code)
