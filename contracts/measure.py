"""Measured numbers as they appear in events and on cards: never a figure without its n."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from contracts.base import Frozen

VerdictName = Literal["passed", "failed", "inconclusive"]


class Interval(Frozen):
    """A confidence interval."""

    low: float
    high: float
    level: float = Field(default=0.95, gt=0, lt=1)


class Measurement(Frozen):
    """A proportion or mean over `n` items, with its interval."""

    name: str
    value: float
    n: int = Field(ge=0)
    interval: Interval | None = None


class Comparison(Frozen):
    """A paired comparison of a candidate against its baseline on the same `n` items.

    `difference` is candidate minus baseline, in the metric's own unit (proportions: 0..1).
    """

    metric: str
    baseline: float
    candidate: float
    difference: float
    interval: Interval
    n: int = Field(ge=0)
    p_value: float | None = None
    adjusted_p: float | None = None
    """Of a slice: p after Holm's correction for all slices of the verdict."""
    detectable: float | None = None
    """The smallest true difference this sample finds with 80 % power at its level."""
