"""Windows and alerts: what fires, what resolves, what never pages."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.telemetry import Arm, Outcome
from services.monitoring.alerts import Monitor
from services.monitoring.rules import load_rules
from services.monitoring.signals import Share
from services.monitoring.windows import ABSENT_AFTER, LastRequests, Windows

RULES = load_rules()


def outcomes(
    *verdicts: bool | None,
    first: int = 0,
    arm: Arm = "stable",
    model: str = "base",
    valid: bool | None = True,
    error: str | None = None,
) -> list[Outcome]:
    return [
        Outcome(
            request_id=f"{model}-{arm}-{first + i}",
            tenant="acme",
            deployment="assistant",
            arm=arm,
            model=model,
            at=float(first + i),
            latency_ms=100.0,
            task_success=verdict,
            schema_valid=valid,
            error=error,
        )
        for i, verdict in enumerate(verdicts)
    ]


def alerts(monitor: Monitor, stream: list[Outcome]):
    return [notice.alert for outcome in stream for notice in monitor.observe(outcome)]


@pytest.mark.req("M1")
def test_success_below_90_percent_of_100_requests_is_one_warning() -> None:
    stream = outcomes(*([True] * 100), *([False] * 60))
    (alert,) = alerts(Monitor(RULES), stream)
    assert (alert.metric, alert.severity, alert.state) == ("task_success", "warning", "firing")
    assert (alert.value, alert.n, alert.threshold) == (0.89, 100, 0.90)
    assert alert.evidence[0] == "base-stable-110"
    assert len(alert.evidence) == 10
    assert "frozen base" in alert.remediation


@pytest.mark.req("M1")
def test_ninety_of_a_hundred_and_a_window_of_ninety_nine_do_not_fire() -> None:
    assert alerts(Monitor(RULES), outcomes(*([True] * 90), *([False] * 10))) == []
    assert alerts(Monitor(RULES), outcomes(*([False] * 99))) == []


@pytest.mark.req("M16")
def test_an_incident_resolves_once_at_the_target_under_its_id() -> None:
    stream = outcomes(*([True] * 100), *([False] * 20), *([True] * 200))
    fired, resolved = alerts(Monitor(RULES), stream)
    assert (fired.state, resolved.state) == ("firing", "resolved")
    assert fired.id == resolved.id
    assert resolved.value == 0.95
    assert resolved.at == 214


@pytest.mark.req("M16")
def test_the_next_incident_has_its_own_id() -> None:
    stream = outcomes(*([True] * 100), *([False] * 20), *([True] * 200), *([False] * 20))
    first, _, second = alerts(Monitor(RULES), stream)
    assert first.id != second.id


@pytest.mark.req("M5")
def test_any_schema_failure_alerts_and_resolves_when_it_has_left_the_window() -> None:
    monitor = Monitor(RULES)
    (fired,) = alerts(monitor, outcomes(True, valid=False))
    assert (fired.metric, fired.value, fired.n) == ("schema_adherence", 0.0, 1)
    assert fired.evidence == ("base-stable-0",)
    assert alerts(monitor, outcomes(*([True] * 99), first=1)) == []
    (resolved,) = alerts(monitor, outcomes(True, first=100))
    assert (resolved.state, resolved.id, resolved.value) == ("resolved", fired.id, 1.0)


@pytest.mark.req("G8")
def test_shadow_outcomes_never_page() -> None:
    stream = outcomes(*([False] * 300), arm="shadow", model="candidate", valid=False)
    assert alerts(Monitor(RULES), stream) == []


@pytest.mark.req("M1")
def test_errors_are_failures_and_missing_verdicts_do_not_count() -> None:
    silent = outcomes(*([None] * 300), valid=None)
    assert alerts(Monitor(RULES), silent) == []
    failing = outcomes(*([None] * 100), valid=None, error="TimeoutError", first=300)
    assert [a.metric for a in alerts(Monitor(RULES), failing)] == ["task_success"]


@pytest.mark.req("M16")
def test_models_of_one_deployment_are_watched_apart() -> None:
    monitor = Monitor(RULES)
    assert alerts(monitor, outcomes(*([True] * 100))) == []
    fired = alerts(monitor, outcomes(*([False] * 100), arm="canary", model="candidate"))
    assert [(a.model, a.metric) for a in fired] == [
        ("candidate", "task_success"),
        ("candidate", "delta_over_baseline"),
    ]


@pytest.mark.req("M16")
def test_a_withdrawn_models_incident_is_closed() -> None:
    monitor = Monitor(RULES)
    (fired,) = alerts(monitor, outcomes(*([False] * 100), arm="canary", model="candidate"))
    (resolved,) = alerts(monitor, outcomes(*([True] * (ABSENT_AFTER + 1))))
    assert (resolved.id, resolved.state) == (fired.id, "resolved")
    assert "withdrawn" in resolved.window
    assert monitor.firing == ()


def drifting(seed: int, n: int = 3000) -> list[Outcome]:
    """Traffic whose success comes and goes."""
    rng = random.Random(seed)
    verdicts = [rng.random() < (0.98 if (i // 400) % 2 == 0 else 0.8) for i in range(n)]
    return outcomes(*verdicts)


@pytest.mark.req("M16")
@pytest.mark.parametrize("seed", range(5))
def test_the_same_telemetry_gives_the_same_alerts_even_if_delivered_twice(seed) -> None:
    stream = drifting(seed)
    once = alerts(Monitor(RULES), stream)
    twice = alerts(Monitor(RULES), [o for item in stream for o in (item, item)])
    assert once == twice == alerts(Monitor(RULES), stream)
    assert len(once) >= 4


@pytest.mark.req("M16")
@pytest.mark.parametrize("cut", [1, 150, 430, 901, 2200])
def test_a_restored_monitor_goes_on_as_if_it_had_never_stopped(cut) -> None:
    stream = drifting(7)
    whole = alerts(Monitor(RULES), stream)
    before = alerts(Monitor(RULES), stream[:cut])
    restored = Monitor(RULES)
    restored.restore(stream[:cut], before)
    assert before + alerts(restored, stream[cut:]) == whole


@given(st.lists(st.booleans(), max_size=300), st.integers(1, 50))
def test_a_window_is_the_mean_of_its_last_verdicts(verdicts, size) -> None:
    window = LastRequests(size)
    for i, verdict in enumerate(verdicts):
        window.add(str(i), 0.0, Share(verdict, 1, not verdict))
    last = verdicts[-size:]
    assert window.sums.requests == len(last)
    assert window.sums.value == (sum(last) / len(last) if last else None)
    failed = [str(i) for i, v in enumerate(verdicts) if not v and i >= len(verdicts) - size]
    assert list(window.troubles()) == failed[::-1][:10]


def test_memory_does_not_grow_with_the_models_a_deployment_once_had() -> None:
    windows = Windows(RULES)
    for version in range(60):
        for outcome in outcomes(*([True] * 200), model=f"adapter-v{version}"):
            windows.add(outcome)
    assert len(windows) <= 1 + ABSENT_AFTER // 200 + 1
