"""`sluice adapters`: what serving holds, and what it should hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from services.cli.options import DEFAULT_TENANT, Json, Tenant

if TYPE_CHECKING:
    from contracts.serving import ServedAdapter

app = typer.Typer(help="Adapters at serving: list, load, unload, pin.", no_args_is_help=False)

AdapterName = Annotated[str, typer.Argument(metavar="ADAPTER", help="Its id.")]


@app.callback(invoke_without_command=True)
def listing(context: typer.Context, tenant: Tenant = DEFAULT_TENANT, json: Json = False) -> None:
    """List a tenant's registered adapters, and which of them are loaded."""
    from services.cli import serving
    from services.cli.reporting import emit, note

    if context.invoked_subcommand is not None:
        return
    found = serving.adapters(tenant)
    if json:
        for adapter in found.data:
            emit(adapter.model_dump(mode="json"))
        return
    if not found.data:
        note(f"no adapter of {tenant} is registered")
        return
    print(f"{'ADAPTER':<40} {'LOADED':<12} {'RANK':>4} {'MB':>7}  DEPLOYMENTS")
    for adapter in found.data:
        print(_line(adapter))


@app.command()
def load(adapter: AdapterName, tenant: Tenant = DEFAULT_TENANT, json: Json = False) -> None:
    """Load a registered adapter before anybody asks for it."""
    _change("load", adapter, tenant, json)


@app.command()
def unload(adapter: AdapterName, tenant: Tenant = DEFAULT_TENANT, json: Json = False) -> None:
    """Drop an adapter's weights; the next request for it loads them again."""
    _change("unload", adapter, tenant, json)


@app.command()
def pin(adapter: AdapterName, tenant: Tenant = DEFAULT_TENANT, json: Json = False) -> None:
    """Load an adapter and keep it loaded."""
    _change("pin", adapter, tenant, json)


@app.command()
def unpin(adapter: AdapterName, tenant: Tenant = DEFAULT_TENANT, json: Json = False) -> None:
    """Let an adapter make room for others again."""
    _change("unpin", adapter, tenant, json)


def _change(what: str, adapter: str, tenant: str, json: bool) -> None:
    from services.cli import serving
    from services.cli.reporting import emit

    found = serving.change(what, adapter, tenant)
    if json:
        emit(found.model_dump(mode="json"))
    else:
        print(_line(found))


def _line(adapter: ServedAdapter) -> str:
    state = "–"
    if adapter.resident:
        state = f"{adapter.tier}{', pinned' if adapter.pinned else ''}"
    rank = "" if adapter.rank is None else str(adapter.rank)
    size = "" if adapter.bytes is None else f"{adapter.bytes / 1e6:.1f}"
    return f"{adapter.id:<40} {state:<12} {rank:>4} {size:>7}  {', '.join(adapter.deployments)}"
