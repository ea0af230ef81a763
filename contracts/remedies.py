"""Remedies: what an alert wants done, as a stream of its own that anybody may act upon.

Subject `sluice.v1.remedy.<tenant>.<deployment>.<remedy>`: a retraining loop subscribes to
`rehearse` and `add_refusals`, whoever runs the engine to `audit_memory`, and reads no prose.
"""

from __future__ import annotations

from typing import Literal

from contracts.alerts import MetricName
from contracts.base import Frozen

RemedyName = Literal[
    "route_to_base",
    "compare_prompts",
    "cap_tokens",
    "structure_output",
    "constrain_decoding",
    "audit_tools",
    "lower_temperature",
    "reject_output",
    "retrain_on_overrides",
    "audit_completions",
    "add_refusals",
    "withdraw",
    "rehearse",
    "audit_memory",
    "review_envelope",
]
"""Of M1 to M15, in their order."""


class Remedy(Frozen):
    """Something has to be done about a model on a deployment, or has to be no longer."""

    alert: str
    """Id of the incident it is for."""
    tenant: str
    deployment: str
    model: str
    metric: MetricName
    remedy: RemedyName
    state: Literal["due", "over"]
    """`over`: the metric is back at its target, or the model answers nobody any more."""
    by: Literal["platform", "subscriber"]
    """Who carries it out: the platform has done so itself, or it is left to whoever listens."""
    advice: str
    evidence: tuple[str, ...] = ()
    """Request ids of the newest offending outcomes."""
    at: float
    """Event time, Unix s."""
