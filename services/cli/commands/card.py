"""`sluice card`: what a run signed, as files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from services.cli.options import DEFAULT_TENANT, Json, RunName, Tenant


def card(
    run: RunName,
    out: Annotated[
        Path | None, typer.Option(help="A new folder; by default the adapter id, or the run.")
    ] = None,
    tenant: Tenant = DEFAULT_TENANT,
    json: Json = False,
) -> None:
    """Fetch what a run signed: its promoted bundle, certificate, or candidate so far."""
    from services.cli.deliverable import deliver, deliverable
    from services.cli.reading import load_run
    from services.cli.reporting import emit
    from services.cli.session import Session, perform, run_ref
    from shared.artifacts import ArtifactStore

    ref = run_ref(run, tenant)

    async def work(opened: Session) -> None:
        store = ArtifactStore(opened.settings.artifacts_url)
        found = deliverable(await load_run(opened, ref), store)
        folder = out or Path(found.name)
        files = deliver(found, store, folder)
        if json:
            emit(
                {
                    "tenant": ref.tenant,
                    "run": ref.run,
                    "kind": found.kind,
                    "name": found.name,
                    "digest": found.digest,
                    "folder": str(folder),
                    "files": files,
                }
            )
            return
        print(f"{found.kind} {found.name} in {folder}:")
        for name in files:
            print(f"  {name}")
        if found.kind != "certificate":
            print(f"verify it with: sluice verify {folder} --key PUBLIC_KEY")

    perform(work)
