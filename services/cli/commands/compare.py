"""`sluice compare`: two runs, or two adapters, side by side."""

from __future__ import annotations

from typing import Annotated

import typer

from services.cli.options import DEFAULT_TENANT, Json, Tenant


def compare(
    left: Annotated[str, typer.Argument(metavar="RUN", help="Run id, tenant/run or adapter id.")],
    right: Annotated[str, typer.Argument(metavar="RUN", help="Run id, tenant/run or adapter id.")],
    every: Annotated[bool, typer.Option("--all", help="Also what is the same in both.")] = False,
    tenant: Tenant = DEFAULT_TENANT,
    json: Json = False,
) -> None:
    """Show what two runs asked differently, and what came of it: job, data, training, gates."""
    from services.cli.comparing import compared
    from services.cli.reading import load_run_or_adapter
    from services.cli.reporting import emit
    from services.cli.session import Session, perform

    async def work(opened: Session) -> None:
        runs = [await load_run_or_adapter(opened, name, tenant) for name in (left, right)]
        refs = [run.ref for run in runs]
        lines = [line for line in compared(*runs) if every or line.differs]
        if json:
            for line in lines:
                emit(
                    {
                        "section": line.section,
                        "name": line.name,
                        str(refs[0]): line.left,
                        str(refs[1]): line.right,
                    }
                )
            return
        from rich.console import Console
        from rich.table import Table

        table = Table("", *map(str, refs))
        for line in lines:
            table.add_row(f"{line.section}: {line.name}", line.left or "-", line.right or "-")
        Console().print(table)

    perform(work)
