"""Telemetry: one outcome per served request. No prompt and no answer ever travels here."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue

from contracts.base import Frozen
from contracts.data import Message

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
    attempt: int = Field(default=1, ge=1)
    """Which try of the caller's this was (header `X-Sluice-Attempt`)."""
    tool_call_valid: bool | None = None
    """The answer calls one of the request's tools with valid arguments; None: it had none."""
    grounding: float | None = Field(default=None, ge=0, le=1)
    """Share of the answer's sentences that the request's documents bear out."""
    citations_supported: bool | None = None
    """Every `[n]` names a document that bears out its sentence; None: nothing was cited."""
    refused: bool | None = None
    """The answer reads as a refusal; None: nobody looked."""
    answer_logprob: float | None = Field(default=None, le=0)
    """Sum over the generated tokens, nats: perplexity is exp(−sum / completion_tokens)."""
    prompt_logprob: float | None = Field(default=None, le=0, allow_inf_nan=False)
    """Sum over the request's tokens but the first, under the frozen base, nats; None: not one of
    the sample. Perplexity is exp(−sum / (prompt_tokens − 1))."""
    semantic_distance: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """How far the request lies from the middle of its adapter's dev set, in units of the dev set's
    own mean distance; None: not one of the sample."""
    embedder: str | None = None
    """What turned the request into a vector."""


class Interaction(Frozen):
    """A request and its answer as the tenant's own application logged them.

    Serving keeps neither, so whoever wants to learn from feedback brings both, with consent.
    """

    request_id: str
    tenant: str
    messages: tuple[Message, ...] = Field(min_length=1)
    """The turns up to the answer."""
    answer: str
    tools: tuple[dict[str, JsonValue], ...] = ()
    correction: str | None = None
    """The answer a person put in its place."""
    user: str | None = None
    """Who asked; kept as a pseudonym, so that splits do not divide a person."""
    consent: bool = False
    """The person agreed that this interaction may train a model."""


FeedbackKind = Literal[
    "accepted", "rejected", "override", "correction", "false_refusal", "safety_incident"
]


class Feedback(Frozen):
    """What a person made of one answer: thumbs, or what they had to do about it.

    `safety_incident` means confirmed: the adapter that answered is withdrawn at once.
    """

    request_id: str
    tenant: str
    deployment: str
    model: str
    """The adapter id that answered, or `base`."""
    run: str | None = None
    """The run that made the adapter."""
    kind: FeedbackKind
    at: float
    """Unix time, s, when serving took it."""
