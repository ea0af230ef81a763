"""`sluice history`: what served a deployment, when and why."""

from __future__ import annotations

from typing import Annotated

import typer

from services.cli.options import DEFAULT_TENANT, Json, Tenant


def history(
    deployment: Annotated[str, typer.Argument(metavar="DEPLOYMENT")],
    tenant: Tenant = DEFAULT_TENANT,
    json: Json = False,
) -> None:
    """Tell what served a deployment when, who let it, and why it was rolled back."""
    from contracts.envelope import UnknownEvent, recorded
    from contracts.subjects import PREFIX
    from services.cli.history import history as lines_of
    from services.cli.reading import messages
    from services.cli.reporting import emit, note
    from services.cli.session import Session, perform

    async def work(opened: Session) -> None:
        records = []
        for service in ("registry", "rollout"):
            pattern = f"{PREFIX}.run.{tenant}.*.{service}.*"
            async for message in messages(opened.js, "RUN", pattern):
                try:
                    records.append(
                        recorded(message.subject, message.headers, message.data, message.seq)
                    )
                except (UnknownEvent, ValueError, KeyError):
                    continue  # a later version's
        found = list(lines_of(sorted(records, key=lambda record: record.seq), deployment))
        for line in found:
            if json:
                emit(
                    {
                        "at": line.at.isoformat(),
                        "run": str(line.run),
                        "adapter_id": line.adapter_id,
                        "what": line.what,
                        "by": line.by,
                        "why": line.why,
                        "serves": line.serves,
                    }
                )
            else:
                clock = line.at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
                print(f"{clock}  {line.adapter_id}  {line.what}, by {line.by}")
                if line.why:
                    print(f"{'':21}{line.why}")
                print(f"{'':21}→ serves {line.serves}")
        if not found and not json:
            note(f"nothing has happened to {tenant}'s deployment {deployment}")

    perform(work)
