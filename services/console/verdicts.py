"""Verdicts as rows of a table: each number with its interval and sample size, and a small figure.

A figure places the interval on an axis that always shows the value that matters: no difference for
a comparison, the whole of 0 to 1 for a proportion.
"""

from __future__ import annotations

from dataclasses import dataclass

from contracts.measure import Comparison, Measurement, VerdictName
from contracts.run import Run

WIDTH = 160.0
MARGIN = 6.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """An interval on an axis, in the pixels of a `WIDTH` wide drawing."""

    low: float
    point: float
    high: float
    reference: float | None = None
    """Where the value that matters lies."""
    reference_is: str = ""
    clear: bool = False
    """The interval does not contain the reference and lies above it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """One measured number of a verdict."""

    name: str
    value: str
    interval: str = ""
    n: int = 0
    note: str = ""
    figure: Figure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictRow:
    """A gate or a rollout stage with its numbers."""

    label: str
    verdict: VerdictName
    summary: str
    numbers: tuple[Number, ...]


def verdict_rows(run: Run) -> tuple[VerdictRow, ...]:
    """Gates in order, then rollout stages as they were judged."""
    gates = [
        VerdictRow(
            label=gate,
            verdict=judged.verdict,
            summary=judged.summary,
            numbers=_numbers(judged.comparisons, judged.measurements),
        )
        for gate, judged in sorted(run.gates.items())
    ]
    stages = [
        VerdictRow(
            label="G8 shadow" if judged.stage == "shadow" else f"G9 canary {judged.percent} %",
            verdict=judged.verdict,
            summary=judged.summary,
            numbers=_numbers(judged.comparisons, judged.measurements),
        )
        for judged in run.stages_judged
    ]
    return (*gates, *stages)


def rung_numbers(run: Run) -> tuple[Number, ...]:
    """Diagnosis's ladder: the base, then each measured rung, against the target."""
    if (diagnosis := run.diagnosis) is None:
        return ()
    measured = [("frozen base", diagnosis.base)]
    measured += [(r.rung.replace("_", " "), r.success) for r in diagnosis.rungs]
    return tuple(_measured(m, name=name, target=diagnosis.target) for name, m in measured)


def _numbers(
    comparisons: tuple[Comparison, ...], measurements: tuple[Measurement, ...]
) -> tuple[Number, ...]:
    return (*map(_compared, comparisons), *map(_measured, measurements))


def _compared(c: Comparison) -> Number:
    reach = max(abs(c.interval.low), abs(c.interval.high), 0.01)
    place = _axis(-reach, reach)
    return Number(
        name=c.metric.replace("_", " "),
        value=f"{c.baseline:.3f} → {c.candidate:.3f} ({c.difference:+.3f})",
        interval=f"[{c.interval.low:+.3f}, {c.interval.high:+.3f}] at {c.interval.level:.0%}",
        n=c.n,
        note="" if c.detectable is None else f"detects {c.detectable:.3f}",
        figure=Figure(
            low=place(c.interval.low),
            point=place(c.difference),
            high=place(c.interval.high),
            reference=place(0.0),
            reference_is="no difference",
            clear=c.interval.low > 0,
        ),
    )


def _measured(m: Measurement, name: str = "", target: float | None = None) -> Number:
    proportion = 0 <= m.value <= 1
    place = _axis(0.0, 1.0)
    low, high = (m.interval.low, m.interval.high) if m.interval else (m.value, m.value)
    figure = Figure(
        low=place(low),
        point=place(m.value),
        high=place(high),
        reference=None if target is None else place(target),
        reference_is="" if target is None else f"target {target:.2f}",
        clear=target is not None and low >= target,
    )
    return Number(
        name=name or m.name.replace("_", " "),
        value=f"{m.value:.3f}" if proportion else f"{m.value:,.6g}",
        interval=f"[{low:.3f}, {high:.3f}] at {m.interval.level:.0%}" if m.interval else "",
        n=m.n,
        figure=figure if proportion and (m.interval or target is not None) else None,
    )


class _axis:  # noqa: N801 - reads as a function: place = _axis(low, high)
    """Maps a value to pixels, kept inside the drawing."""

    def __init__(self, low: float, high: float) -> None:
        self._low = low
        self._span = high - low

    def __call__(self, value: float) -> float:
        share = min(1.0, max(0.0, (value - self._low) / self._span))
        return round(MARGIN + share * (WIDTH - 2 * MARGIN), 1)
