"""`sluice failures`: the root causes of a failure log, offline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from services.cli.options import Json


def failures(
    file: Annotated[Path, typer.Argument(help="JSON Lines of traces; - is standard input.")],
    json: Json = False,
) -> None:
    """Diagnose a failure log: ranked causes, their evidence, and what to do. No broker."""
    from services.cli.findings import findings, findings_as_json, read_failures
    from services.cli.reporting import emit

    report, refused = read_failures(file)
    if json:
        emit(findings_as_json(report, refused))
        return
    print("\n".join(findings(report, refused)))
