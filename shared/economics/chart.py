"""Cost against volume: two lines, the point where they meet, axes with their units.

As SVG for a page, and in text for a terminal.
"""

from __future__ import annotations

from contracts.economics import MTOK, Ledger
from shared.economics.break_even import break_even, costs

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 720, 400, 90, 60, 40, 20
TICKS = 5
COLUMNS, ROWS = 56, 12


def text(ledger: Ledger) -> str:
    """The chart in characters: `t` the teacher, `s` the student, `X` where they meet."""
    meets, last, highest = _extent(ledger)
    canvas = [[" "] * (COLUMNS + 1) for _ in range(ROWS + 1)]
    for column in range(COLUMNS + 1):
        student, teacher = costs(ledger, last * column / COLUMNS)
        for mark, money in (("s", student), ("t", teacher)):
            canvas[ROWS - round(ROWS * money / highest)][column] = mark
    if meets is not None:
        money = costs(ledger, meets)[1]
        canvas[ROWS - round(ROWS * money / highest)][round(COLUMNS * meets / last)] = "X"
    top, mtok = f"{highest:,.0f}", last * ledger.tokens_per_request / MTOK
    margin = max(len(top), 1)
    lines = [f"{ledger.currency} spent: t teacher, s student, X break-even"]
    for number, row in enumerate(canvas):
        label = {0: top, ROWS: "0"}.get(number, "")
        lines.append(f"{label:>{margin}} |{''.join(row).rstrip()}")
    end = f"{mtok:,.4g} million tokens"
    lines.append(f"{'':>{margin}} +{'-' * COLUMNS}")
    lines.append(f"{'':>{margin}}  0{end:>{COLUMNS}}")
    return "\n".join(lines)


def _extent(ledger: Ledger) -> tuple[float | None, float, float]:
    """Requests at break-even, requests at the right edge, and the highest cost there."""
    meets = break_even(ledger).break_even_requests
    traffic = (ledger.monthly_requests or 0) * ledger.horizon_months
    last = max(2 * (meets or 0), 0 if meets else traffic) or 1e6
    return meets, last, max(*costs(ledger, last), 1e-9)


def svg(ledger: Ledger) -> str:
    """A self-contained SVG document."""
    found = break_even(ledger)
    meets, last, highest = _extent(ledger)

    def x(requests: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * requests / last

    def y(money: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * money / highest

    lines = []
    for name, colour, which in (("student", "#0b6e4f", 0), ("teacher", "#b3541e", 1)):
        start, end = costs(ledger, 0)[which], costs(ledger, last)[which]
        lines.append(
            f'<line x1="{x(0):.1f}" y1="{y(start):.1f}" x2="{x(last):.1f}" y2="{y(end):.1f}" '
            f'stroke="{colour}" stroke-width="2.5"/>'
            f'<text x="{x(last) - 8:.1f}" y="{y(end) - 8:.1f}" text-anchor="end" '
            f'fill="{colour}">{name}</text>'
        )
    for tick in range(TICKS + 1):
        requests, money = last * tick / TICKS, highest * tick / TICKS
        mtok = requests * ledger.tokens_per_request / MTOK
        lines.append(
            f'<text x="{x(requests):.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">'
            f"{mtok:,.4g}</text>"
            f'<text x="{LEFT - 8}" y="{y(money) + 4:.1f}" text-anchor="end">{money:,.4g}</text>'
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(money):.1f}" y2="{y(money):.1f}" '
            f'stroke="#ddd"/>'
        )
    if meets is not None and found.break_even_tokens is not None:
        money = costs(ledger, meets)[1]
        lines.append(
            f'<circle cx="{x(meets):.1f}" cy="{y(money):.1f}" r="5"/>'
            f'<text x="{x(meets) + 10:.1f}" y="{y(money) + 16:.1f}">break-even: '
            f"{found.break_even_tokens / MTOK:,.1f} million tokens</text>"
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="sans-serif" font-size="12">'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>{"".join(lines)}'
        f'<text x="{(LEFT + WIDTH) / 2:.0f}" y="{HEIGHT - 14}" text-anchor="middle">'
        f"million tokens</text>"
        f'<text x="16" y="{TOP - 16}">cost, {_escaped(ledger.currency)}</text></svg>\n'
    )


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
