"""`sluice runs`: every run of a tenant, newest last."""

from __future__ import annotations

from typing import Annotated

import typer

from services.cli.options import DEFAULT_TENANT, Json, Tenant

NOT_YET = "no service has taken it yet"
NO_FACT = "its log holds no fact"


def runs(
    tenant: Tenant = DEFAULT_TENANT,
    every_tenant: Annotated[bool, typer.Option("--all", help="Of every tenant.")] = False,
    json: Json = False,
) -> None:
    """List runs with their state."""
    from contracts.run import Run
    from services.cli.reading import run_refs, submitted_at
    from services.cli.reporting import emit, note
    from services.cli.session import Session, perform
    from services.cli.story import tell
    from shared.messaging.runlog import RunLog

    def _standing(run: Run) -> tuple[str, str]:
        """Status, and the last that is known."""
        if run.log:
            return run.status, tell(run.log[-1].event).headline
        return ("unreadable", NO_FACT) if run.version else ("submitted", NOT_YET)

    async def work(opened: Session) -> None:
        log = RunLog(opened.js)
        rows = []
        for ref in await run_refs(opened.js, "*" if every_tenant else tenant):
            run = await log.load(ref)
            began = run.log[0].at if run.log else await submitted_at(opened.js, ref)
            rows.append((began, run))
        rows.sort(key=lambda row: (row[0] is not None, row[0], str(row[1].ref)))
        if not rows and not json:
            note("no runs; submit one with `sluice submit FILE`")
        for began, run in rows:
            status, last = _standing(run)
            if json:
                emit(_as_json(run, status, began.isoformat() if began else None, last))
            else:
                clock = began.astimezone().strftime("%Y-%m-%d %H:%M:%S") if began else "-"
                print(f"{clock}  {run.ref!s:<40} {status:<12} {last}")

    def _as_json(run: Run, status: str, began: str | None, last: str) -> dict[str, object]:
        return {
            "tenant": run.ref.tenant,
            "run": run.ref.run,
            "status": status,
            "attempt": run.attempt,
            "began": began,
            "last": last,
            "adapter_id": run.registered.adapter_id if run.registered else None,
        }

    perform(work)
