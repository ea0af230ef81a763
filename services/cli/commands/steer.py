"""Commands to a run: `sluice cancel`, `retry`, `approve`, `hold`, `rollback` and their like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from services.cli.options import DEFAULT_TENANT, Json, RunName, Tenant

if TYPE_CHECKING:
    from contracts.base import Frozen
    from contracts.run import Status


def cancel(
    run: RunName,
    reason: Annotated[str, typer.Option(help="Lands in the run's log.")] = "",
    tenant: Tenant = DEFAULT_TENANT,
    json: Json = False,
) -> None:
    """Stop a run at its next safe point; training keeps its checkpoint."""
    from contracts.commands import Cancel

    _steer(run, tenant, Cancel(reason=reason), {"active", "held"}, json=json)


def retry(
    run: RunName,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the new attempt.")] = False,
    tenant: Tenant = DEFAULT_TENANT,
    json: Json = False,
) -> None:
    """Start another attempt of a run that ended. Work already done is not repeated."""
    from contracts.commands import Retry
    from contracts.run import CLOSED

    _steer(run, tenant, Retry(), set(CLOSED - {"promoted", "withdrawn"}), json=json, watch=watch)


def approve(run: RunName, tenant: Tenant = DEFAULT_TENANT, json: Json = False) -> None:
    """Let a rollout with `approval: manual` take its next stage."""
    from contracts.commands import Approve

    _steer(run, tenant, Approve(), {"active", "held"}, json=json)


def hold(
    run: RunName,
    reason: Annotated[str, typer.Option(help="Lands in the run's log.")] = "",
    tenant: Tenant = DEFAULT_TENANT,
    json: Json = False,
) -> None:
    """Keep a rollout at its present share until `sluice approve`."""
    from contracts.commands import Hold

    _steer(run, tenant, Hold(reason=reason), {"active"}, json=json)


def rollback(
    run: RunName,
    reason: Annotated[str, typer.Option(help="Lands in the run's log.")] = "",
    tenant: Tenant = DEFAULT_TENANT,
    json: Json = False,
) -> None:
    """End a rollout; its deployment answers as before. Of a promoted run, see `withdraw`."""
    from contracts.commands import Rollback

    _steer(run, tenant, Rollback(reason=reason), {"active", "held"}, json=json)


def withdraw(
    run: RunName,
    reason: Annotated[str, typer.Option(help="Signed into the revocation.")],
    kind: Annotated[
        Literal["retired", "revoked", "safety_override"],
        typer.Option(help="Its time is over; it may not be trusted; it does harm."),
    ] = "retired",
    tenant: Tenant = DEFAULT_TENANT,
    json: Json = False,
) -> None:
    """Take a run's adapter out of service at once; its deployment answers from what was before."""
    from contracts.commands import Withdraw

    states: set[Status] = {"active", "held", "promoted", "rolled_back", "failed", "cancelled"}
    _steer(run, tenant, Withdraw(kind=kind, reason=reason), states, json=json)


def observe(
    run: RunName,
    quantity: Annotated[
        Literal[
            "price_per_mtok",
            "teacher_price_per_mtok",
            "monthly_requests",
            "fallback_rate",
            "success",
            "latency_ms",
        ],
        typer.Argument(help="What was measured."),
    ],
    value: Annotated[float, typer.Argument(min=0, help="What it is now.")],
    source: Annotated[str, typer.Option(help="Who measured it.")] = "",
    tenant: Tenant = DEFAULT_TENANT,
    json: Json = False,
) -> None:
    """Tell a run that ended without training what has changed; it may be open again."""
    from contracts.commands import Observe

    seen = Observe(quantity=quantity, value=value, source=source)
    _steer(run, tenant, seen, {"declined", "halted"}, json=json)


def _steer(
    name: str,
    tenant: str,
    command: Frozen,
    states: set[Status],
    *,
    json: bool,
    watch: bool = False,
) -> None:
    from services.cli.commanding import publish_command
    from services.cli.following import follow_run
    from services.cli.reading import load_run
    from services.cli.reporting import emit
    from services.cli.screen import screen
    from services.cli.session import Session, perform, run_ref
    from shared.errors import PermanentError

    ref = run_ref(name, tenant)
    verb = type(command).__name__.lower()

    async def work(opened: Session) -> int:
        run = await load_run(opened, ref)
        if run.status not in states:
            raise PermanentError(
                f"run {ref} is {run.status}: there is nothing to {verb}",
                mend=f"see `sluice show {ref}`",
            )
        await publish_command(opened, ref, command)
        if json:
            emit({"tenant": ref.tenant, "run": ref.run, "command": verb, "status": run.status})
        else:
            print(f"{verb} of {ref} published")
        if not watch:
            return 0
        with screen(json=json) as view:
            return await follow_run(opened, ref, view, after=run.version)

    if code := perform(work):
        raise typer.Exit(code)
