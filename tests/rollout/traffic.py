"""Simulated live traffic: outcomes with known true rates, from a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from contracts.telemetry import Arm, Feedback, FeedbackKind, Outcome

ADAPTER = "Base-tool_calls-v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """How an arm truly behaves."""

    success: float = 0.97
    errors: float = 0.0
    valid: float = 0.99
    latency_ms: float = 150.0
    tokens: float = 30.0
    """Of an answer; its prompt has 100."""
    refuses: float = 0.02
    surprise: float = 0.3
    """Mean of an answer's nats per token."""
    overridden: float = 0.01
    incidents: float = 0.0


HEALTHY = Behaviour()
STABLE = Behaviour(success=0.95)


def outcome(
    request: str,
    arm: Arm,
    behaviour: Behaviour,
    rng: random.Random,
    *,
    deployment: str = "assistant",
    adapter: str = ADAPTER,
    at: float = 0.0,
) -> Outcome:
    """One request as an arm of this behaviour would answer it."""
    more = random.Random(f"{request} {arm}")
    tokens = max(1, round(more.gauss(behaviour.tokens, 5)))
    failed = rng.random() < behaviour.errors
    valid = rng.random() < behaviour.valid
    return Outcome(
        request_id=request,
        tenant="acme",
        deployment=deployment,
        arm=arm,
        model="base" if arm == "stable" else adapter,
        at=at,
        latency_ms=rng.lognormvariate(0, 0.4) * behaviour.latency_ms,
        prompt_tokens=100,
        completion_tokens=0 if failed else tokens,
        refused=None if failed else more.random() < behaviour.refuses,
        answer_logprob=None if failed else -tokens * more.gammavariate(9, behaviour.surprise / 9),
        error="TimeoutError" if failed else None,
        schema_valid=None if failed else valid,
        task_success=None if failed else valid and rng.random() < behaviour.success,
    )


def feedback(answer: Outcome, behaviour: Behaviour) -> list[Feedback]:
    """What people made of an answer that they saw."""
    more = random.Random(f"{answer.request_id} people")
    kinds: list[FeedbackKind] = []
    if more.random() < behaviour.overridden:
        kinds.append("override")
    if more.random() < behaviour.incidents:
        kinds.append("safety_incident")
    return [
        Feedback(
            request_id=answer.request_id,
            tenant=answer.tenant,
            deployment=answer.deployment,
            model=answer.model,
            run="r1",
            kind=kind,
            at=answer.at,
        )
        for kind in kinds
    ]


def shadow_traffic(
    candidate: Behaviour, *, seed: int = 0, stable: Behaviour = STABLE, **about: str
) -> Iterator[Outcome]:
    """Every request on both arms."""
    rng = random.Random(seed)
    number = 0
    while True:
        request = f"s{seed}-{number}"
        yield outcome(request, "stable", stable, rng, at=number, **about)
        yield outcome(request, "shadow", candidate, rng, at=number, **about)
        number += 1


def canary_traffic(
    candidate: Behaviour,
    *,
    percent: float = 50,
    seed: int = 0,
    stable: Behaviour = STABLE,
    **about: str,
) -> Iterator[Outcome]:
    """Each request on one arm."""
    rng = random.Random(seed)
    number = 0
    while True:
        request = f"c{percent}-{seed}-{number}"
        if rng.random() < percent / 100:
            yield outcome(request, "canary", candidate, rng, at=number, **about)
        else:
            yield outcome(request, "stable", stable, rng, at=number, **about)
        number += 1
