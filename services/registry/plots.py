"""Plots of an HTML card, as inline SVG: what changed, and what each rollout stage saw."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import pairwise

from contracts.evaluation import GateJudged
from contracts.measure import Comparison, Measurement
from contracts.rollout import StageJudged

WIDTH, LEFT, RIGHT = 720, 150, 116
ROW = 44


def changes(gates: Sequence[GateJudged]) -> str:
    """Baseline and candidate of each compared proportion, with the candidate's interval."""
    rows = [
        (gate.gate, row)
        for gate in gates
        for row in gate.comparisons
        if 0 <= row.baseline <= 1 and 0 <= row.candidate <= 1
    ]
    if not rows:
        return ""
    height = ROW * len(rows) + 40
    lines = [_axis(height)]
    lines += [_change(gate, row, ROW * place + 26) for place, (gate, row) in enumerate(rows)]
    return _svg(height, "Success before and after, per gate", lines)


def stages(judged: Sequence[StageJudged]) -> str:
    """Candidate and stable success at each stage, in the order they were judged."""
    points = [
        (stage, {m.name: m for m in stage.measurements})
        for stage in judged
        if any(m.name == "candidate_success" and m.n for m in stage.measurements)
    ]
    if not points:
        return ""
    height, floor = 230, 190
    step = (WIDTH - 120) / max(1, len(points) - 1) if len(points) > 1 else 0

    def x(place: int) -> float:
        return 70 + step * place

    def y(share: float) -> float:
        return floor - 150 * share

    lines = [
        f'<line class="grid" x1="50" x2="{WIDTH - 20}" y1="{y(s):.1f}" y2="{y(s):.1f}"/>'
        f'<text class="tick" x="42" y="{y(s) + 4:.1f}" text-anchor="end">{s:.0%}</text>'
        for s in (0.0, 0.5, 1.0)
    ]
    for name in ("stable", "candidate"):
        places = [
            (x(place), y(found[f"{name}_success"].value))
            for place, (_, found) in enumerate(points)
            if f"{name}_success" in found and found[f"{name}_success"].n
        ]
        lines += [
            f'<line class="{name}" x1="{a[0]:.1f}" y1="{a[1]:.1f}" x2="{b[0]:.1f}" '
            f'y2="{b[1]:.1f}"/>'
            for a, b in pairwise(places)
        ]
    for place, (stage, found) in enumerate(points):
        lines.append(_point(found["candidate_success"], x(place), y))
        if "stable_success" in found and found["stable_success"].n:
            centre = y(found["stable_success"].value)
            lines.append(f'<circle class="before" cx="{x(place):.1f}" cy="{centre:.1f}" r="5"/>')
        label = "shadow" if stage.stage == "shadow" else f"{stage.percent} %"
        lines.append(
            f'<text class="tick" x="{x(place):.1f}" y="{floor + 24}" text-anchor="middle">{label}'
            "</text>"
        )
    return _svg(height, "Success of candidate and stable arm at each stage", lines)


def _point(measured: Measurement, x: float, y: object) -> str:
    assert callable(y)
    found = measured.interval
    bar = (
        f'<line class="interval" x1="{x:.1f}" x2="{x:.1f}" y1="{y(found.low):.1f}" '
        f'y2="{y(found.high):.1f}"/>'
        if found
        else ""
    )
    return f'{bar}<circle class="after" cx="{x:.1f}" cy="{y(measured.value):.1f}" r="6"/>'


def _change(gate: str, row: Comparison, y: float) -> str:
    low = max(0.0, row.baseline + row.interval.low)
    high = min(1.0, row.baseline + row.interval.high)
    points = f"{100 * row.difference:+.1f}".replace("-", "−")
    better = "gain" if row.difference >= 0 else "loss"
    return (
        f'<text class="name" x="{LEFT - 16}" y="{y + 1:.0f}" text-anchor="end">'
        f"{escape(row.metric.replace('_', ' '))}</text>"
        f'<text class="tick" x="{LEFT - 16}" y="{y + 16:.0f}" text-anchor="end">'
        f"{escape(gate)}, n = {row.n}</text>"
        f'<line class="move" x1="{_x(row.baseline):.1f}" x2="{_x(row.candidate):.1f}" '
        f'y1="{y}" y2="{y}"/>'
        f'<line class="interval" x1="{_x(low):.1f}" x2="{_x(high):.1f}" y1="{y}" y2="{y}"/>'
        f'<circle class="before" cx="{_x(row.baseline):.1f}" cy="{y}" r="5"/>'
        f'<circle class="after" cx="{_x(row.candidate):.1f}" cy="{y}" r="6"/>'
        f'<text class="{better}" x="{WIDTH - RIGHT + 18}" y="{y + 5:.0f}">{points} points</text>'
    )


def _axis(height: int) -> str:
    ticks = (0.0, 0.25, 0.5, 0.75, 1.0)
    return "".join(
        f'<line class="grid" x1="{_x(s):.1f}" x2="{_x(s):.1f}" y1="6" y2="{height - 24}"/>'
        f'<text class="tick" x="{_x(s):.1f}" y="{height - 8}" text-anchor="middle">{s:.0%}</text>'
        for s in ticks
    )


def _x(share: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * share


def _svg(height: int, title: str, lines: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(lines)}</svg>"
    )
