"""`sluice doctor`: look over the installation."""

from __future__ import annotations

import typer

from services.cli.options import Json


def doctor(json: Json = False) -> None:
    """Check environment, broker, streams, services, disk and model; say how to mend what is wrong.

    Exits 1 if something will not work.
    """
    import asyncio
    import dataclasses

    from services.cli.checkup import check_up
    from services.cli.reporting import emit
    from services.cli.session import settings_here

    async def work() -> bool:
        bad = False
        async for found in check_up(settings_here()):
            bad = bad or found.state == "bad"
            if json:
                emit(dataclasses.asdict(found))
                continue
            mark = {"ok": "✓", "warning": "!", "bad": "✗"}[found.state]
            print(f"{mark} {found.what}: {found.says}", flush=True)
            if found.mend:
                print(f"    mend: {found.mend}", flush=True)
        return bad

    if asyncio.run(work()):
        raise typer.Exit(1)
