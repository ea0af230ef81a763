"""One span for each answer on each arm, by the GenAI semantic conventions of OpenTelemetry.

A caller that sends `traceparent` gets its spans; without one there is nothing to be a part of, and
metrics say the rest. Neither prompt nor answer is ever in a span.
"""

from __future__ import annotations

from typing import Any

from opentelemetry import trace
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as names
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.trace import SpanKind, Status, StatusCode

from contracts.telemetry import Outcome
from services.serving.engine.port import GenerationRequest
from shared.metrics import PROVIDER
from shared.telemetry import parent_of

_NS = 1_000_000_000


def record(
    outcome: Outcome,
    request: GenerationRequest,
    *,
    operation: str,
    traceparent: str | None,
    cached_tokens: int = 0,
) -> None:
    """State a finished answer as a child of the caller's span."""
    if traceparent is None:
        return
    end = int(outcome.at * _NS)
    span = trace.get_tracer("sluiceway.serving").start_span(
        f"{operation} {outcome.deployment}",
        context=parent_of(traceparent),
        kind=SpanKind.SERVER,
        start_time=end - int(outcome.latency_ms * 1e6),
        attributes=_attributes(outcome, request, operation, cached_tokens),
    )
    if outcome.error is not None:
        span.set_attribute(ERROR_TYPE, outcome.error)
        span.set_status(Status(StatusCode.ERROR))
    span.end(end_time=end)


def _attributes(
    outcome: Outcome, request: GenerationRequest, operation: str, cached_tokens: int
) -> dict[str, Any]:
    drawn, first_ms = request.sampling, outcome.time_to_first_token_ms
    found = {
        names.GEN_AI_OPERATION_NAME: operation,
        names.GEN_AI_PROVIDER_NAME: PROVIDER,
        names.GEN_AI_REQUEST_MODEL: outcome.deployment,
        names.GEN_AI_RESPONSE_MODEL: outcome.model,
        names.GEN_AI_RESPONSE_ID: outcome.request_id,
        names.GEN_AI_REQUEST_MAX_TOKENS: request.max_tokens,
        names.GEN_AI_REQUEST_TEMPERATURE: drawn.temperature,
        names.GEN_AI_REQUEST_TOP_P: drawn.top_p,
        names.GEN_AI_REQUEST_TOP_K: drawn.top_k or None,
        names.GEN_AI_REQUEST_SEED: drawn.seed,
        names.GEN_AI_REQUEST_STOP_SEQUENCES: request.stop or None,
        names.GEN_AI_USAGE_INPUT_TOKENS: outcome.prompt_tokens,
        names.GEN_AI_USAGE_OUTPUT_TOKENS: outcome.completion_tokens,
        names.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: cached_tokens,
        names.GEN_AI_RESPONSE_FINISH_REASONS: (
            (outcome.finish_reason,) if outcome.finish_reason else None
        ),
        names.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK: None if first_ms is None else first_ms / 1e3,
        "sluice.tenant": outcome.tenant,
        "sluice.arm": outcome.arm,
    }
    return {name: value for name, value in found.items() if value is not None}
