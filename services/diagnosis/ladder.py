"""The Adaptation Decision Ladder as data a person can read and edit (`ladder.yaml`, D2)."""

from __future__ import annotations

from functools import cache
from importlib import resources

import yaml

from contracts.base import Frozen
from contracts.diagnosis import RungName


class Rung(Frozen):
    """One rung: an intervention with its ten attributes."""

    rung: RungName
    name: str
    depth: str
    """How deep the behaviour change reaches."""
    reversibility: str
    iteration: str
    data: str
    cost: str
    latency: str
    auditability: str
    deployment: str
    regression_risk: str
    runs: str | None = None
    """The challenger that measures it (`services.diagnosis.challengers`)."""
    why: str = ""
    """Why it is not measured here."""
    trains: bool = False


@cache
def ladder() -> tuple[Rung, ...]:
    """The fifteen rungs, lightest first."""
    text = resources.files("services.diagnosis").joinpath("ladder.yaml").read_text("utf-8")
    return tuple(Rung.model_validate(entry) for entry in yaml.safe_load(text))
