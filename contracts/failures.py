"""A failure log and its diagnosis: failing traces in, ranked causes with evidence out (D3).

A trace is one failed request as the application saw it, one line of JSON Lines. Everything but the
request and the answer is optional: what a log does not carry is not evidence.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue

from contracts.base import Frozen
from contracts.data import Message
from contracts.measure import Measurement

CauseName = Literal[
    "prompt_harness",
    "context",
    "retrieval",
    "tool",
    "schema",
    "model_selection",
    "evaluation",
    "product_workflow",
    "adaptation",
]
"""The specification's nine failure categories."""


class Passage(Frozen):
    """A retrieved passage that was put before the model."""

    text: str
    source: str = ""


class ToolCall(Frozen):
    """A call the model made, and what came of it."""

    name: str
    arguments: dict[str, JsonValue] = Field(default_factory=dict)
    result: JsonValue = None
    error: str | None = None


class Grade(Frozen):
    """One grader's verdict on the answer."""

    grader: str
    passed: bool


class Alternative(Frozen):
    """How another model did on the same request."""

    model: str
    passed: bool


class Trace(Frozen):
    """One failed request: what went in, what came out, and what anybody said about it."""

    id: str = Field(min_length=1, max_length=200)
    request: str
    """The user's last turn."""
    answer: str
    model: str = ""
    system: str = ""
    """The instructions, exemplars included."""
    history: tuple[Message, ...] = ()
    """Earlier turns of the conversation."""
    retrieved: tuple[Passage, ...] | None = None
    """None: nothing was searched. Empty: a search found nothing."""
    tools: tuple[str, ...] = ()
    """Names of the tools offered."""
    calls: tuple[ToolCall, ...] = ()
    expected: JsonValue = None
    output_schema: dict[str, JsonValue] | None = None
    """JSON Schema the answer had to satisfy."""
    error: str | None = None
    """What a parser, validator, guard or test of the application said."""
    correction: str | None = None
    """What a user or reviewer said afterwards."""
    grades: tuple[Grade, ...] = ()
    resamples: tuple[str, ...] = ()
    """Further answers of the same model to the same prompt."""
    alternatives: tuple[Alternative, ...] = ()
    prompt_tokens: int | None = Field(default=None, ge=0)
    context_limit: int | None = Field(default=None, ge=1)
    finish_reason: str | None = None
    at: str | None = None


class Diagnosed(Frozen):
    """The cause of one trace, with the signals that say so; None if nothing points anywhere."""

    trace: str
    cause: CauseName | None
    signals: tuple[str, ...] = ()
    runner_up: CauseName | None = None


class FailureCluster(Frozen):
    """Traces of one cause that look alike."""

    example: str
    """The request of the first one."""
    traces: tuple[str, ...]


class CauseFinding(Frozen):
    """One cause found in the log: how often, on what evidence, and what to do about it."""

    cause: CauseName
    title: str
    share: Measurement
    """Of all traces of the log, with its interval."""
    signals: dict[str, int]
    """Signal → traces that show it, the most frequent first."""
    clusters: tuple[FailureCluster, ...]
    """The largest first."""
    mechanism: str
    intervention: str
    guardrail: str


class FailureReport(Frozen):
    """The diagnosis of a failure log: causes ranked by their share."""

    schema_: Literal["sluice.failures/v1"] = Field(default="sluice.failures/v1", alias="schema")
    traces: int
    findings: tuple[CauseFinding, ...]
    undetermined: tuple[str, ...] = ()
    """Traces that show no signal."""
    diagnosed: tuple[Diagnosed, ...]
