"""`sluice package`: a promoted adapter as one file, for an operator elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from services.cli.options import Json


def package(
    path: Annotated[Path, typer.Argument(help="The bundle's folder (see `sluice card`).")],
    key: Annotated[
        list[Path], typer.Option(help="A file of public keys you trust, PEM. May be repeated.")
    ],
    out: Annotated[Path | None, typer.Option(help="By default <adapter id>.tar.")] = None,
    max_rank: Annotated[
        int | None, typer.Option(help="The largest rank the engine there takes.")
    ] = None,
    max_bytes: Annotated[
        int | None, typer.Option(help="Memory the engine there has for this adapter.")
    ] = None,
    json: Json = False,
) -> None:
    """Pack a bundle that verifies, with rollout policy, thresholds, limits and rollback target."""
    from services.cli.packaging import describe, misfits, write
    from services.cli.reporting import emit
    from shared.errors import InvalidInput
    from shared.signing import load_ring

    described = describe(path, [public for file in key for public in load_ring(file)])
    if problems := misfits(described, max_rank=max_rank, max_bytes=max_bytes):
        raise InvalidInput(problems)
    target = out or Path(f"{described.adapter_id}.tar")
    write(described, path, target)
    if json:
        emit({"file": str(target), **described.model_dump(mode="json", by_alias=True)})
    else:
        print(f"{described.adapter_id} for {described.deployment} in {target}")
