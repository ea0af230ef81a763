"""The method matrix as data (D6): `methods.yaml`, which a person can read and edit."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import Field, ValidationError

from contracts.base import Frozen
from contracts.job import MethodName
from shared.errors import Misconfigured

METHODS = Path(__file__).with_name("methods.yaml")

RowName = Literal[
    "sft",
    "instruction",
    "lora",
    "qlora",
    "preference",
    "domain_adaptation",
    "distillation",
    "synthetic_generation",
]
Fact = Literal[
    "demonstrations",
    "many_tasks",
    "preference_pairs",
    "raw_text",
    "short_memory",
    "synthesis",
    "teacher_price",
    "teacher",
]
"""What a method may need of a job. `method.facts` says which hold."""


class DataRange(Frozen):
    """How much data a method wants."""

    low: int = Field(ge=1)
    high: int
    unit: str


class MethodRow(Frozen):
    """One method with its seven attributes, and what the policy reads."""

    method: RowName
    title: str
    ideal_use_case: str
    required_data: str
    training_complexity: str
    infrastructure_burden: str
    behavioural_depth: str
    failure_risk: str
    evaluation_requirements: str
    rank: int | None
    available: bool
    data: DataRange | None
    needs: dict[Fact, str]
    chosen: str
    passed_over: str


@cache
def matrix(path: Path = METHODS) -> dict[str, MethodRow]:
    """Method → its row, in the file's order.

    Raises:
        Misconfigured: a row is malformed, a method is missing, or two share a rank.
    """
    loaded: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    try:
        rows = [MethodRow.model_validate(entry) for entry in loaded]
    except ValidationError as error:
        raise Misconfigured(f"{path.name}: {error}", mend="Correct the named field.") from error
    if sorted(row.method for row in rows) != sorted(get_args(RowName)):
        raise Misconfigured(f"{path.name} does not hold each method once", mend="Restore the rows.")
    ranks = [row.rank for row in rows if row.rank is not None]
    if len(set(ranks)) < len(ranks):
        raise Misconfigured(f"{path.name} gives two methods one rank", mend="Rank each alone.")
    return {row.method: row for row in rows}


def row_of(method: MethodName) -> MethodRow:
    """The row of a method that a job can name; `auto` has none (KeyError)."""
    return matrix()[method]
