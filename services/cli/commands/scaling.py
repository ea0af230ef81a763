"""`sluice scaling`: a law over pilot distillations, and which teacher to take, offline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.cli.options import Json

if TYPE_CHECKING:
    from shared.economics.scaling import Interval


def scaling(
    pilots: Annotated[
        Path, typer.Argument(help="YAML or JSON, as examples/economics/pilots.yaml.")
    ],
    json: Json = False,
) -> None:
    """Fit a scaling law to pilot runs; find the capacity gap; predict a student's loss."""
    from dataclasses import asdict

    from services.cli.ledgers import read_pilots
    from services.cli.reporting import emit
    from shared.economics.scaling import advise

    found, gaps, target = advise(read_pilots(pilots))
    if json:
        emit(
            {
                "fit": asdict(found),
                "capacity_gap": [asdict(gap) for gap in gaps],
                "prediction": None if target is None else asdict(target),
            }
        )
        return
    print("L = L_inf + A N^-alpha + B D^-beta, 95 % intervals")
    for name, estimate in (
        ("L_inf", found.irreducible),
        ("A", found.a),
        ("alpha", found.alpha),
        ("B", found.b),
        ("beta", found.beta),
    ):
        print(f"  {name:<6} {_said(estimate)}")
    worst = max(found.residuals, key=abs)
    print(f"  residuals: rmse {found.rmse:.3g}, largest {worst:+.3g}; R² {found.explained:.3f}")
    print("\nteacher, by student size")
    for gap in gaps:
        print(f"  {gap.parameters:.3g}: {gap.shape.replace('_', ' ')}: {gap.said}")
    if target is not None:
        print(f"\npredicted loss {_said(target.loss)}")
        if target.notice:
            print(f"  {target.notice}")


def _said(estimate: Interval) -> str:
    return f"{estimate.value:.4g} [{estimate.low:.4g}, {estimate.high:.4g}]"
