"""Simulated live traffic: outcomes with known true rates, from a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from contracts.telemetry import Arm, Outcome

ADAPTER = "Base-tool_calls-v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """How an arm truly behaves."""

    success: float = 0.97
    errors: float = 0.0
    valid: float = 0.99
    latency_ms: float = 150.0


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
        error="TimeoutError" if failed else None,
        schema_valid=None if failed else valid,
        task_success=None if failed else valid and rng.random() < behaviour.success,
    )


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
