"""The rules: which metric is watched, where it alerts, what to do then. Data: `rules.yaml`."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from typing import Literal

import yaml
from pydantic import Field, TypeAdapter, model_validator

from contracts.alerts import MetricName, Severity
from contracts.base import Frozen
from contracts.telemetry import Outcome


class Rule(Frozen):
    """One metric over the newest outcomes of one model on one deployment."""

    metric: MetricName
    requirement: str
    """The row of docs/requirements.md."""
    outcome: Literal["task_success", "schema_valid"]
    """The outcome's field that says yes or no."""
    window: int = Field(ge=1, le=10_000)
    minimum: int = Field(ge=1)
    """Fewer verdicts than this say nothing yet."""
    target: float = Field(gt=0, le=1)
    """Back at this, the alert resolves."""
    alert: float = Field(gt=0, le=1)
    """Below this, it fires."""
    severity: Severity
    remediation: str

    @model_validator(mode="after")
    def _ordered(self) -> Rule:
        if self.alert > self.target:
            raise ValueError("an alert threshold above the target would never resolve")
        if self.minimum > self.window:
            raise ValueError("the window never holds its minimum")
        return self

    def verdict(self, outcome: Outcome) -> bool | None:
        """What the outcome says about this metric; None if nothing.

        A failed request is no success, and says nothing about its schema.
        """
        if outcome.error is not None:
            return False if self.outcome == "task_success" else None
        value: bool | None = getattr(outcome, self.outcome)
        return value

    @property
    def window_in_words(self) -> str:
        return f"last {self.window} requests"


@lru_cache(maxsize=1)
def load_rules() -> tuple[Rule, ...]:
    """The rules of `rules.yaml`. Raises pydantic.ValidationError."""
    text = files("services.monitoring").joinpath("rules.yaml").read_text(encoding="utf-8")
    return TypeAdapter(tuple[Rule, ...]).validate_python(yaml.safe_load(text))
