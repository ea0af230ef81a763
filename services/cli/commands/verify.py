"""`sluice verify`: a bundle against public keys, offline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from services.cli.options import Json


def verify(
    path: Annotated[Path, typer.Argument(help="The bundle's folder (see `sluice card`).")],
    key: Annotated[
        list[Path], typer.Option(help="A file of public keys you trust, PEM. May be repeated.")
    ],
    revocations: Annotated[
        Path | None, typer.Option(help="A folder of revocations (see `sluice revocations`).")
    ] = None,
    threshold: Annotated[
        int, typer.Option(min=1, help="Signatures the closing document must carry.")
    ] = 1,
    json: Json = False,
) -> None:
    """Verify a bundle link by link. No network, no broker. Exits 1 if anything fails."""
    from contracts.base import Problem
    from services.cli.reporting import emit
    from shared.bundles import verify_bundle
    from shared.errors import InvalidInput
    from shared.signing import load_ring

    for folder, mend in (
        (path, "fetch the bundle with `sluice card RUN`"),
        (revocations, "fetch them with `sluice revocations --out DIR`"),
    ):
        if folder is not None and not folder.is_dir():
            raise InvalidInput([Problem(where=str(folder), problem="is no folder", mend=mend)])
    listed = sorted(revocations.iterdir()) if revocations else []
    found = verify_bundle(
        path,
        [public for file in key for public in load_ring(file)],
        {file.name: file.read_bytes() for file in listed},
        threshold=threshold,
    )
    if json:
        emit(
            {
                "ok": found.ok,
                "state": found.state,
                "adapter_id": found.adapter_id,
                "reached": list(found.reached),
                "missing": list(found.missing),
                "links": [
                    {"name": link.name, "ok": link.ok, "reason": link.reason}
                    for link in found.links
                ],
            }
        )
    else:
        for link in found.links:
            print(
                f"{'✓' if link.ok else '✗'} {link.name}{': ' if link.reason else ''}{link.reason}"
            )
        name = found.adapter_id or path.name
        print(f"{name}: {found.state if found.ok else 'does not verify'}")
        if found.state == "candidate":
            print(f"attested: {', '.join(found.reached) or 'nothing yet'}")
            print(f"not yet: {', '.join((*found.missing, 'promotion'))}")
    if not found.ok:
        raise typer.Exit(1)
