"""`sluice up`: the whole platform on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.cli.options import DEFAULT_TENANT, Json

if TYPE_CHECKING:
    from services.cli.supervision.platform import Plan, Platform


def up(
    home: Annotated[
        Path, typer.Option(envvar="SLUICE_HOME", help="Everything lives under it.")
    ] = Path(".sluice"),
    port: Annotated[int, typer.Option(help="Of the embedded NATS.")] = 4222,
    serving_port: Annotated[int, typer.Option(help="Of the OpenAI-compatible API.")] = 8080,
    console_port: Annotated[int, typer.Option(help="Of the web console.")] = 8081,
    base: Annotated[
        str | None,
        typer.Option(
            envvar="SLUICE_BASE", help="What serving loads: a folder, or a name under models/."
        ),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="These services (repeat, or a,b); `none`: NATS alone.")
    ] = None,
    without: Annotated[list[str] | None, typer.Option(help="All but these.")] = None,
    beside: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="NAME=MODULE", help="Also run a Python module of yours."),
    ] = None,
    tenants: Annotated[
        str, typer.Option(envvar="SLUICE_TENANT", help="They get a login to NATS (a,b).")
    ] = DEFAULT_TENANT,
    wait_s: Annotated[float, typer.Option(help="Seconds until everything must be healthy.")] = 300,
    ready_file: Annotated[
        Path | None, typer.Option(help="Created when everything is up, removed at the end.")
    ] = None,
    json: Json = False,
) -> None:
    """Start NATS and every service here; stop them all with Ctrl-C.

    A service that dies is started again. Prints `sluice: ready` when everything is up.
    """
    import asyncio

    from services.cli.supervision.platform import Plan
    from services.cli.supervision.selection import select, tenant_names, user_programs

    plan = Plan(
        home=home.resolve(),
        port=port,
        serving_port=serving_port,
        console_port=console_port,
        base=base,
        services=select(only or (), without or ()),
        extra=user_programs(beside or ()),
        wait_s=wait_s,
        tenants=tenant_names(tenants.split(",")),
    )
    asyncio.run(_up(plan, ready_file, json=json))


async def _up(plan: Plan, ready_file: Path | None, *, json: bool) -> None:
    import asyncio
    import signal
    from contextlib import suppress

    from services.cli.reporting import note
    from services.cli.supervision.platform import running_platform

    this = asyncio.current_task()
    assert this is not None
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(sign, this.cancel)
    with suppress(asyncio.CancelledError):
        async with running_platform(plan, note) as platform:
            with _marked(ready_file):
                _say_ready(platform, json=json)
                await asyncio.Event().wait()
    note("stopped")


@contextmanager
def _marked(ready_file: Path | None) -> Iterator[None]:
    """The ready file exists while everything is up."""
    from services.cli.reporting import note

    if ready_file is not None:
        ready_file.write_text("ready\n", encoding="utf-8")
    try:
        yield
    finally:
        if ready_file is not None:
            ready_file.unlink(missing_ok=True)
        note("stopping")


def _say_ready(platform: Platform, *, json: bool) -> None:
    from services.cli.reporting import emit

    plan = platform.plan
    names = list(platform.supervisor.watched)
    pids = {name: platform.supervisor.watched[name].pid for name in names}
    urls = {name: url for name, url in plan.urls.items() if name in names}
    if json:
        emit({"ready": True, "home": str(plan.home), "pids": pids, "urls": urls})
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"sluice on {plan.home}", title_justify="left")
    for heading in ("service", "pid", "where", "log"):
        table.add_column(heading, overflow="fold")
    for name in names:
        log = platform.supervisor.watched[name].log
        table.add_row(name, str(pids[name]), urls.get(name, ""), f"logs/{log.name}")
    Console().print(table)
    print("sluice: ready", flush=True)
