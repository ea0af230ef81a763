"""The rules: which metric is watched, where it alerts, what to do then. Data: `rules.yaml`."""

from __future__ import annotations

import math
from functools import lru_cache
from importlib.resources import files
from typing import Literal

import yaml
from pydantic import Field, TypeAdapter, model_validator

from contracts.alerts import MetricName, Severity
from contracts.base import Frozen
from contracts.remedies import RemedyName
from services.monitoring.signals import PAIRED, SIGNALS


class Rule(Frozen):
    """One metric of one model on one deployment, over its newest requests or hours."""

    metric: MetricName
    kind: str = ""
    """Tells rules of one metric apart."""
    requirement: str
    """The row of docs/requirements.md."""
    signal: str
    """What outcomes and feedback add to it: a function of `signals.py`."""
    requests: int | None = Field(default=None, ge=1, le=10_000)
    """The window: so many of the newest requests that say something ..."""
    hours: float | None = Field(default=None, gt=0)
    """... or the newest hours of event time."""
    minimum: int = Field(ge=1)
    """Fewer requests than this say nothing yet."""
    reference: Literal["none", "base", "first"] = "none"
    """Measured against the frozen base here, or against this model's first `minimum` requests."""
    relation: Literal["itself", "difference", "ratio", "exp_difference"] = "itself"
    fires: Literal["below", "above"] = "below"
    target: float
    """Back at this, the alert resolves."""
    alert: float
    """Beyond this, it fires."""
    severity: Severity
    action: Literal["none", "withdraw"] = "none"
    """What monitoring asks for by itself when the alert fires."""
    remedy: RemedyName
    """The same as `remediation`, for programs."""
    remediation: str

    @model_validator(mode="after")
    def _consistent(self) -> Rule:
        if self.signal not in SIGNALS and self.signal != PAIRED:
            raise ValueError(f"no signal {self.signal!r}; there are {', '.join(SIGNALS)}")
        if (self.requests is None) == (self.hours is None):
            raise ValueError("a window is either requests or hours")
        if self.requests is not None and self.minimum > self.requests:
            raise ValueError("the window never holds its minimum")
        if (self.reference == "none") != (self.relation == "itself"):
            raise ValueError("a relation needs a reference, and a reference a relation")
        if self.alert != self.target and (self.alert > self.target) != (self.fires == "above"):
            raise ValueError("an alert threshold on the target's good side would never resolve")
        return self

    @property
    def key(self) -> str:
        """Unique among the rules."""
        return f"{self.metric}.{self.kind}" if self.kind else self.metric

    def relate(self, value: float, reference: float) -> float | None:
        """`value` against its reference; None where that means nothing."""
        match self.relation:
            case "difference":
                return value - reference
            case "ratio":
                return value / reference if reference > 0 else None
            case "exp_difference":
                return math.exp(value - reference)
            case "itself":
                return value

    def broken(self, value: float) -> bool:
        return value < self.alert if self.fires == "below" else value > self.alert

    def met(self, value: float) -> bool:
        return value >= self.target if self.fires == "below" else value <= self.target

    @property
    def window_in_words(self) -> str:
        if self.requests is not None:
            return f"last {self.requests} requests"
        return f"last {self.hours:g} hours"


@lru_cache(maxsize=1)
def load_rules() -> tuple[Rule, ...]:
    """The rules of `rules.yaml`. Raises pydantic.ValidationError."""
    text = files("services.monitoring").joinpath("rules.yaml").read_text(encoding="utf-8")
    return TypeAdapter(tuple[Rule, ...]).validate_python(yaml.safe_load(text))
