"""`sluice diagnose`: should this job train? The question alone, asked of the running platform."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.cli.options import Json

if TYPE_CHECKING:
    from contracts.run import Run

WIDTH = 180
"""Columns of the table where there is no terminal."""


def diagnose(
    file: Annotated[Path, typer.Argument(help="The job, YAML or JSON.")],
    failures: Annotated[
        Path | None, typer.Option(help="A failure log (JSON Lines of traces) to explain too.")
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show every rung of the ladder with its verdict.")
    ] = False,
    run: Annotated[str | None, typer.Option(help="The run id; by default <name>-<8 hex>.")] = None,
    tenant: Annotated[
        str | None, typer.Option(envvar="SLUICE_TENANT", help="Must be the job's own.")
    ] = None,
    json: Json = False,
) -> None:
    """Measure whether a job should train at all, and train nothing.

    The job is submitted with `stop_after: diagnosis` and followed to its verdict.
    Exit code: 0 a verdict, 3 halted, rejected or failed, 5 cancelled.
    """
    import asyncio

    from services.cli.commanding import new_run_id, publish_submit
    from services.cli.findings import findings, findings_as_json, read_failures
    from services.cli.following import follow_run
    from services.cli.jobfile import read_own_job
    from services.cli.pinning import pin
    from services.cli.reading import load_run
    from services.cli.reporting import emit
    from services.cli.screen import AsideView
    from services.cli.session import run_ref, session, settings_here
    from shared.artifacts import ArtifactStore

    job, source = read_own_job(file, tenant)
    found = None if failures is None else read_failures(failures)
    ref = run_ref(run or new_run_id(job.name), job.tenant)
    settings = settings_here()
    pinned, _ = pin(job, source, ArtifactStore(settings.artifacts_url))
    alone = pinned.model_copy(update={"stop_after": "diagnosis"})

    async def work() -> tuple[int, Run]:
        async with session(settings) as opened:
            await publish_submit(opened, ref, alone)
            code = await follow_run(opened, ref, AsideView())
            return code, await load_run(opened, ref)

    code, ended = asyncio.run(work())
    if json:
        emit(_as_json(ended) | {"failures": findings_as_json(*found) if found else None})
    else:
        _print(ended, explain=explain)
        if found:
            print("\n" + "\n".join(findings(*found)))
    if code:
        raise typer.Exit(code)


def _as_json(run: Run) -> dict[str, Any]:
    from dataclasses import asdict

    from services.cli.explaining import ladder_lines
    from services.cli.screen import outcome_as_json

    last = run.log[-1]
    return outcome_as_json(run) | {
        "kind": "diagnosis",
        "type": last.event.type_name(),
        "verdict": last.event.model_dump(mode="json", by_alias=True),
        "ladder": [asdict(line) for line in ladder_lines(run)],
    }


def _print(run: Run, *, explain: bool) -> None:
    import sys

    from services.cli.explaining import HEADS, ladder_lines
    from services.cli.story import tell

    telling = tell(run.log[-1].event)
    print(f"run {run.ref}: {telling.headline}")
    if explain and (lines := ladder_lines(run)):
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(*HEADS)
        for line in lines:
            table.add_row(*map(Text, line.cells))
        Console(width=None if sys.stdout.isatty() else WIDTH).print(table)
    else:
        for detail in telling.details:
            print(f"  {detail}")
    for mend in telling.mends:
        print(f"  mend: {mend}")
