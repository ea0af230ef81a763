"""`sluice economics`: whether a distillation pays for itself, offline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from services.cli.options import Json

BAR = 40


def economics(
    ledger: Annotated[
        Path, typer.Argument(help="YAML or JSON, as examples/economics/ledger.yaml.")
    ],
    json: Json = False,
    svg: Annotated[
        Path | None, typer.Option(help="Write the chart of cost against volume.")
    ] = None,
) -> None:
    """Break-even of a distillation in tokens, requests and months, with its sensitivity."""
    from dataclasses import asdict

    from services.cli.ledgers import read_ledger
    from services.cli.reporting import emit
    from shared.economics import break_even, sensitivity
    from shared.economics import svg as drawn
    from shared.economics import text as chart

    book = read_ledger(ledger)
    found, swings = break_even(book), sensitivity(book)
    if svg is not None:
        svg.write_text(drawn(book), encoding="utf-8")
    if json:
        emit({**asdict(found), "sensitivity": [asdict(row) for row in swings]})
        return
    money = book.currency
    print(f"{found.verdict.replace('_', ' ')}: {found.reason}")
    print(f"\n  one-off cost            {found.one_off_cost:>16,.2f} {money}")
    print(f"  teacher, per Mtok       {book.teacher_price_per_mtok:>16,.2f} {money}")
    print(f"  student, per Mtok       {found.student_price_per_mtok:>16,.2f} {money}, fallbacks in")
    if found.break_even_tokens is not None and found.break_even_requests is not None:
        print(f"  break-even              {found.break_even_tokens:>16,.0f} tokens")
        print(f"                          {found.break_even_requests:>16,.0f} requests")
    if found.break_even_months is not None:
        print(f"                          {found.break_even_months:>16,.1f} months")
    if found.horizon_saving is not None:
        print(
            f"  saved in {book.horizon_months:g} months".ljust(26)
            + f"{found.horizon_saving:>16,.2f} {money}"
        )
    print(f"\n{chart(book)}")
    if found.break_even_tokens is not None:
        print("\nbreak-even tokens if one entry is 20 % lower .. higher")
        scale = max(v for row in swings for v in (row.low, row.high) if v is not None) or 1.0
        for row in swings:
            ends = f"{_said(row.low):>12} .. {_said(row.high):<12}"
            print(f"  {row.entry:<24} {ends} {_bar(row, scale)}")
    if found.claim:
        print(f"\n{found.claim}")


def _said(tokens: float | None) -> str:
    return "never" if tokens is None else f"{tokens / 1e6:,.1f} M"


def _bar(row: object, scale: float) -> str:
    """From the lower to the higher break-even, on a common scale."""
    ends = [BAR if v is None else round(BAR * v / scale) for v in (row.low, row.high)]  # type: ignore[attr-defined]
    return " " * min(ends) + "█" * max(1, max(ends) - min(ends))
