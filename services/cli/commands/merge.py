"""`sluice merge`: adapters into one checkpoint, verified."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from services.cli.options import Json


def merge(
    base: Annotated[Path, typer.Argument(help="The base's folder.")],
    adapters: Annotated[
        list[Path], typer.Argument(help="Adapter folders or bundles: one, or several for TIES.")
    ],
    out: Annotated[Path, typer.Option(help="A new folder for the checkpoint.")],
    density: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="TIES: share of each change that is kept.")
    ] = 0.2,
    dtype: Annotated[Literal["float32", "bfloat16"], typer.Option()] = "float32",
    key: Annotated[
        Path | None, typer.Option(help="A signing key: signs the derivation record.")
    ] = None,
    json: Json = False,
) -> None:
    """Merge adapters into their base, and verify the result against the unmerged model."""
    from dataclasses import asdict

    from services.cli.reporting import emit
    from shared.merging import read_source
    from shared.signing import SigningKey

    sources = [read_source(folder) for folder in adapters]
    from shared.merging.merge import merge as merged  # loads torch: after what can be refused

    signer = SigningKey.load_or_create(key) if key is not None else None
    found = merged(base, sources, out, density=density, dtype=dtype, signer=signer)
    if json:
        emit({**asdict(found), "out": str(out)})
        return
    print(f"{out}: {found.method} merge of {len(sources)} into {found.base[:19]}…")
    print(f"  verified: log-probabilities differ by {found.largest_difference:.2g} at most")
    print(f"            ({found.tolerance:g} allowed in {found.dtype})")
    if found.sign_conflict is not None:
        print(f"  signs in conflict: {found.sign_conflict:.1%} of the entries")
    if found.re_evaluate:
        print(f"  {found.re_evaluate}")
