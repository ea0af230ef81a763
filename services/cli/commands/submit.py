"""`sluice submit`: validate a job, store its files, publish it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from services.cli.options import Json


def submit(
    file: Annotated[Path, typer.Argument(help="The job, YAML or JSON.")],
    watch: Annotated[bool, typer.Option("--watch", help="Follow the run to its end.")] = False,
    run: Annotated[str | None, typer.Option(help="The run id; by default <name>-<8 hex>.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, do nothing.")
    ] = False,
    tenant: Annotated[
        str | None, typer.Option(envvar="SLUICE_TENANT", help="Must be the job's own.")
    ] = None,
    json: Json = False,
) -> None:
    """Submit an adaptation job.

    Relative paths in the job are relative to its file. The files go into the artifact store, and
    the job is published with their digests.
    """
    import asyncio

    from services.cli.commanding import new_run_id, publish_submit
    from services.cli.jobfile import read_own_job
    from services.cli.pinning import pin
    from services.cli.reporting import emit
    from services.cli.session import run_ref, session, settings_here
    from shared.artifacts import ArtifactStore

    job, source = read_own_job(file, tenant)
    ref = run_ref(run or new_run_id(job.name), job.tenant)
    settings = settings_here()
    pinned_job, files = pin(job, source, ArtifactStore(settings.artifacts_url), dry_run=dry_run)
    result: dict[str, object] = {
        "run": ref.run,
        "tenant": ref.tenant,
        "submitted": not dry_run,
        "files": {found.uri: str(found.pinned) for found in files},
    }
    if not json:
        for pinned in files:
            rows = "in the store" if pinned.rows is None else f"{pinned.rows} rows"
            print(f"{pinned.uri}: {rows}, {pinned.pinned.digest[:19]}…")
    if dry_run:
        emit(result) if json else print(f"{file}: valid; nothing was submitted")
        return

    async def work() -> int:
        async with session(settings) as opened:
            result["traceparent"] = await publish_submit(opened, ref, pinned_job)
            if json:
                emit(result)
            else:
                print(f"run {ref} submitted")
            if not watch:
                if not json:
                    print(f"watch it with: sluice watch {ref}")
                return 0
            from services.cli.following import follow_run
            from services.cli.screen import screen

            with screen(json=json) as view:
                return await follow_run(opened, ref, view)

    if code := asyncio.run(work()):
        raise typer.Exit(code)
