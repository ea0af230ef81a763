"""Telemetry: one outcome per served request. No prompt and no answer ever travels here."""

from __future__ import annotations

from typing import Literal

from contracts.base import Frozen

Arm = Literal["stable", "canary", "shadow"]


class Outcome(Frozen):
    """What happened to one request on one arm, judged at the execution boundary."""

    request_id: str
    tenant: str
    deployment: str
    arm: Arm
    model: str
    """The adapter id that answered, or `base`."""
    at: float
    """Unix time, s, when the answer was complete."""
    latency_ms: float
    time_to_first_token_ms: float | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish_reason: str | None = None
    error: str | None = None
    """Exception type of a failed request."""
    schema_valid: bool | None = None
    """The answer parses and satisfies the request's tools or schema; None: it had none."""
    task_success: bool | None = None
    """Automated validation at the execution boundary (M1): no error, not cut off, schema kept."""
