"""The adaptation ladder as data (D2): `ladder.yaml`, which a person can read and edit."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, get_args

import yaml

from contracts.base import Frozen
from contracts.diagnosis import RungName
from shared.errors import Misconfigured

LADDER = Path(__file__).with_name("ladder.yaml")


class Rung(Frozen):
    """One intervention with the ten attributes of the specification's table."""

    step: int
    rung: RungName
    title: str
    behaviour_change_depth: str
    reversibility: str
    iteration_speed: str
    data_burden: str
    cost_profile: str
    latency_impact: str
    auditability: str
    deployment_complexity: str
    regression_risk: str


@cache
def ladder(path: Path = LADDER) -> tuple[Rung, ...]:
    """The fifteen rungs in order.

    Raises:
        Misconfigured: a rung is missing, twice there, or out of order.
    """
    loaded: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    rungs = tuple(Rung.model_validate(entry) for entry in loaded)
    names = [rung.rung for rung in rungs]
    if sorted(names) != sorted(get_args(RungName)):
        raise Misconfigured(f"{path.name} does not hold each rung once", mend="Restore the rungs.")
    if [rung.step for rung in rungs] != list(range(1, len(rungs) + 1)):
        raise Misconfigured(f"{path.name} is out of order", mend="Number the steps from 1.")
    return rungs
