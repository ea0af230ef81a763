"""What a stage says when it begins: how many outcomes it wants, and what they can show (G9)."""

from __future__ import annotations

import math
from typing import TypeVar

from contracts.base import Event
from contracts.rollout import StageStarted
from contracts.run import Run
from services.rollout import ladder
from services.rollout.limits import Limits
from services.rollout.measured import detects

Fact = TypeVar("Fact", bound=Event | None)


def announced(run: Run, fact: Fact) -> Fact:
    """A `StageStarted` with its plan; any other fact as it is."""
    if not isinstance(fact, StageStarted) or run.job is None:
        return fact
    outcomes = ladder.wanted(run.job.rollout, fact)
    share = fact.percent / 100 if fact.stage == "canary" else 1.0
    return fact.model_copy(
        update={
            "outcomes": outcomes,
            "requests": math.ceil(outcomes / share),
            "detects": detects(outcomes, Limits.of(run.job)),
        }
    )
