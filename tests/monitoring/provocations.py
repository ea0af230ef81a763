"""For each metric of M1 to M15, telemetry that makes it alert."""

from __future__ import annotations

from typing import Any, get_args

from contracts.alerts import MetricName
from contracts.telemetry import Feedback, Outcome

CANDIDATE = "tiny-calls-v1"
HOUR_S = 3600.0
Stream = list[Outcome | Feedback]


def provoked_by(metric: MetricName) -> Stream:
    """A stream of a deployment named after the metric."""

    def outcome(number: int, **changes: Any) -> Outcome:
        fields = {
            "request_id": f"{metric}-{number}",
            "tenant": "acme",
            "deployment": metric,
            "arm": "stable",
            "model": CANDIDATE,
            "at": float(number),
            "latency_ms": 90.0,
            "prompt_tokens": 100,
            "completion_tokens": 20,
            "task_success": True,
            "schema_valid": True,
        }
        return Outcome.model_validate({**fields, **changes})

    def many(count: int, first: int = 0, **changes: Any) -> Stream:
        return [outcome(first + i, **changes) for i in range(count)]

    def feedback(number: int, kind: str) -> Feedback:
        return Feedback.model_validate(
            {
                "request_id": f"{metric}-{number}",
                "tenant": "acme",
                "deployment": metric,
                "model": CANDIDATE,
                "run": "run-1",
                "kind": kind,
                "at": 200.0,
            }
        )

    base = many(100, 1000, model="base")
    mirrored = [
        pair
        for i in range(100)
        for pair in (outcome(i, model="base"), outcome(i, arm="shadow", task_success=i > 2))
    ]
    streams: dict[MetricName, Stream] = {
        "task_success": [outcome(i, task_success=i % 5 > 0) for i in range(100)],
        "delta_over_baseline": [*base, *[outcome(i, task_success=i % 20 > 0) for i in range(100)]],
        "cost_per_success": [*base, *many(100, completion_tokens=60)],
        "first_attempt_validity": [outcome(i, schema_valid=i % 10 > 0) for i in range(100)],
        "schema_adherence": [outcome(1, schema_valid=False)],
        "tool_call_success": [outcome(i, tool_call_valid=i % 10 > 0) for i in range(100)],
        "grounding": many(20, grounding=0.7),
        "citation_support": [outcome(1, citations_supported=False)],
        "override_rate": [*many(100), *[feedback(i, "override") for i in range(6)]],
        "correction_rate": [*many(100), *[feedback(i, "correction") for i in range(16)]],
        "refusal_accuracy": [*many(50), feedback(7, "false_refusal")],
        "safety_incidents": [outcome(1), feedback(1, "safety_incident")],
        "regression_rate": mirrored,
        "adapter_incidents": [outcome(1, error="AdapterRefused", schema_valid=None)],
        "drift": [
            *many(200, answer_logprob=-10.0),
            *[outcome(i, at=25 * HOUR_S + i, answer_logprob=-40.0) for i in range(500, 700)],
        ],
    }
    assert set(streams) == set(get_args(MetricName))
    return streams[metric]
