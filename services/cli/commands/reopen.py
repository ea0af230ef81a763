"""`sluice reopen`: news that a run's decision may hang on."""

from __future__ import annotations

from typing import Annotated

import typer

from services.cli.options import DEFAULT_TENANT, Json, RunName, Tenant


def reopen(
    run: RunName,
    reason: Annotated[str, typer.Option(help="Lands in the run's log.")] = "",
    price: Annotated[
        float | None, typer.Option(help="Of a million tokens of the student or the lighter rung.")
    ] = None,
    teacher_price: Annotated[
        float | None, typer.Option(help="Of a million tokens of the teacher.")
    ] = None,
    monthly_requests: Annotated[int | None, typer.Option(help="The traffic projected now.")] = None,
    tokens_per_request: Annotated[float | None, typer.Option()] = None,
    fallback_rate: Annotated[
        float | None, typer.Option(help="Share of requests the teacher answers after the student.")
    ] = None,
    latency_ms: Annotated[
        float | None, typer.Option(help="Median, of the rung that suffices.")
    ] = None,
    success: Annotated[
        float | None, typer.Option(help="Measured, of the rung that suffices.")
    ] = None,
    tenant: Tenant = DEFAULT_TENANT,
    json: Json = False,
) -> None:
    """Report what has changed; a decision that no longer holds is taken again."""
    from pydantic import ValidationError

    from contracts.commands import Reconsider
    from services.cli.commanding import publish_command
    from services.cli.reading import load_run
    from services.cli.reporting import emit
    from services.cli.session import Session, perform, run_ref
    from shared.errors import InvalidInput
    from shared.problems import problems_of

    ref = run_ref(run, tenant)
    try:
        command = Reconsider(
            reason=reason,
            price_per_mtok=price,
            teacher_price_per_mtok=teacher_price,
            monthly_requests=monthly_requests,
            tokens_per_request=tokens_per_request,
            fallback_rate=fallback_rate,
            latency_ms=latency_ms,
            success=success,
        )
    except ValidationError as error:
        raise InvalidInput(problems_of(error)) from error

    async def work(opened: Session) -> int:
        found = await load_run(opened, ref)
        await publish_command(opened, ref, command)
        if json:
            emit({"tenant": ref.tenant, "run": ref.run, "news": command.news})
        else:
            print(f"news for {ref} ({found.status}) published; see `sluice show {ref}`")
        return 0

    if code := perform(work):
        raise typer.Exit(code)
