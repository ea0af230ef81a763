"""A policy's named endings, from the numbers of its steps."""

from __future__ import annotations

from dataclasses import replace

import pytest

from contracts.preference import PpoParameters
from services.training.health import RunStopped
from services.training.policy_health import WINDOW, PolicyHealth, PolicyStep

pytestmark = pytest.mark.req("T3")
HEALTHY = PolicyStep(reward=0.0, kl=1.0, entropy=1.0, reference_entropy=1.2, answer_tokens=10.0)


def ending(change: dict[str, float]) -> RunStopped | None:
    health = PolicyHealth(PpoParameters())
    try:
        for step in range(8 * WINDOW):
            share = min(1, step / (6 * WINDOW))
            seen = {k: getattr(HEALTHY, k) * (1 - share) + v * share for k, v in change.items()}
            health.check(step + 1, replace(HEALTHY, **seen))
    except RunStopped as stop:
        return stop
    return None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param({}, None, id="nothing moves"),
        pytest.param({"reward": 3.0, "kl": 20.0}, None, id="reward up, kl within"),
        pytest.param({"reward": 3.0, "kl": 60.0}, "reward_hacking", id="reward up, kl off"),
        pytest.param(
            {"reward": 3.0, "answer_tokens": 50}, "reward_hacking", id="longer and longer"
        ),
        pytest.param({"reward": 3.0, "answer_tokens": 1}, "reward_hacking", id="next to nothing"),
        pytest.param({"answer_tokens": 50}, None, id="longer, but not for reward"),
        pytest.param({"kl": 60.0}, "policy_collapse", id="away for nothing"),
        pytest.param({"entropy": 0.0}, "policy_collapse", id="one thing whatever is asked"),
        pytest.param({"entropy": 0.0, "reference_entropy": 0.0}, None, id="as sure as the base is"),
    ],
)
def test_a_policy_that_is_lost_ends_by_its_name(change, reason):
    stop = ending(change)
    assert (stop.reason if stop else None) == reason
    assert stop is None or "beta" in stop.mend
