"""Alerts: the public stream `sluice.v1.alert.<tenant>.<deployment>.<metric>`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from contracts.base import Frozen

MetricName = Literal[
    "task_success",
    "delta_over_baseline",
    "cost_per_success",
    "first_attempt_validity",
    "schema_adherence",
    "tool_call_success",
    "grounding",
    "citation_support",
    "override_rate",
    "correction_rate",
    "refusal_accuracy",
    "safety_incidents",
    "regression_rate",
    "adapter_incidents",
    "drift",
]
"""M1 to M15 of docs/requirements.md, in their order."""
Severity = Literal["notice", "warning", "critical"]


class Alert(Frozen):
    """A metric crossed its threshold, or came back."""

    id: str
    """The same for every repetition of one incident."""
    tenant: str
    deployment: str
    metric: MetricName
    kind: str = ""
    """Which signal of a metric that has several: drift's `meaning` and `prompts` (the requests'
    perplexity); empty for its answers' perplexity."""
    severity: Severity
    state: Literal["firing", "resolved"]
    value: float
    threshold: float
    window: str
    """In words: `last 100 requests`."""
    n: int = Field(ge=0)
    model: str
    evidence: tuple[str, ...] = ()
    """Request ids of the newest offending outcomes."""
    remediation: str
    taken: Literal["none", "withdraw"] = "none"
    """What monitoring itself has asked for: `withdraw` is the command of that name."""
    at: float
    """Event time, Unix s."""
