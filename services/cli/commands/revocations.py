"""`sluice revocations`: every adapter that was withdrawn, and the signed word of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from services.cli.options import DEFAULT_TENANT, Json, Tenant


def revocations(
    out: Annotated[
        Path | None, typer.Option(help="Write the signed revocations here, for `sluice verify`.")
    ] = None,
    tenant: Tenant = DEFAULT_TENANT,
    every_tenant: Annotated[bool, typer.Option("--all", help="Of every tenant.")] = False,
    json: Json = False,
) -> None:
    """List withdrawn adapters, oldest first."""
    from contracts.envelope import recorded
    from contracts.registry import AdapterWithdrawn
    from contracts.subjects import PREFIX
    from services.cli.reading import messages
    from services.cli.reporting import emit, note
    from services.cli.session import Session, perform
    from shared.artifacts import ArtifactStore

    async def work(opened: Session) -> None:
        store = ArtifactStore(opened.settings.artifacts_url)
        pattern = f"{PREFIX}.run.{'*' if every_tenant else tenant}.*.registry.withdrawn"
        found = 0
        async for message in messages(opened.js, "RUN", pattern):
            fact = recorded(message.subject, message.headers, message.data, message.seq)
            event = fact.event
            assert isinstance(event, AdapterWithdrawn)  # the subject says so
            found += 1
            if out is not None:
                store.fetch(event.revocation, out / f"{event.adapter_id}.revocation.dsse.json")
            if json:
                emit({"run": str(fact.ref), "at": fact.at.isoformat(), **event.model_dump()})
            else:
                clock = fact.at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
                print(f"{clock}  {event.adapter_id:<48} {event.kind:<16} {event.reason}")
        if not found and not json:
            note("no adapter was withdrawn")
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)

    perform(work)
