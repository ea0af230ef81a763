"""Options and arguments that commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[
    bool, typer.Option("--json", help="Machine-readable: one JSON object, or one a line.")
]
Tenant = Annotated[
    str, typer.Option(envvar="SLUICE_TENANT", help="Whose runs; `tenant/run` names it too.")
]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="`run` or `tenant/run`.")]
DEFAULT_TENANT = "demo"
