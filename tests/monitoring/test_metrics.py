"""Each metric of M1 to M15, provoked by the outcomes and the feedback that it is about."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.alerts import Alert
from contracts.telemetry import Feedback, Outcome
from services.monitoring.alerts import Monitor, Notice
from services.monitoring.rules import Rule, load_rules
from services.monitoring.signals import Share
from services.monitoring.windows import BUCKETS, LastHours

RULES = load_rules()
CANDIDATE = "tiny-calls-v1"
HOUR_S = 3600.0


def outcome(number: int, **changes: Any) -> Outcome:
    fields = {
        "request_id": f"r{number}",
        "tenant": "acme",
        "deployment": "assistant",
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


def feedback(number: int, kind: str, **changes: Any) -> Feedback:
    fields = {
        "request_id": f"r{number}",
        "tenant": "acme",
        "deployment": "assistant",
        "model": CANDIDATE,
        "run": "run-1",
        "kind": kind,
        "at": float(number),
    }
    return Feedback.model_validate({**fields, **changes})


def many(count: int, first: int = 0, **changes: Any) -> list[Outcome]:
    return [outcome(first + i, **changes) for i in range(count)]


def notices(stream: list[Outcome | Feedback]) -> list[Notice]:
    monitor = Monitor(RULES)
    return [notice for signal in stream for notice in monitor.observe(signal)]


def fired(stream: list[Any]) -> list[tuple[str, str]]:
    alerts: list[Alert] = [notice.alert for notice in notices(stream)]
    return [(alert.metric, alert.state) for alert in alerts]


def test_every_row_of_the_monitoring_table_has_its_rule() -> None:
    rows = dict.fromkeys(rule.requirement for rule in RULES)
    assert list(rows) == [f"M{row}" for row in range(1, 16)]
    assert len({rule.key for rule in RULES}) == len(RULES)


def test_a_healthy_deployment_beside_its_base_fires_nothing() -> None:
    base = many(200, model="base", task_success=None, completion_tokens=30, prompt_tokens=110)
    busy = {"answer_logprob": -12.0, "grounding": 0.97, "citations_supported": True}
    assert fired([*base, *many(1500, first=300, tool_call_valid=True, **busy)]) == []


@pytest.mark.req("M2")
def test_worse_than_the_frozen_base_fires_delta_over_baseline_alone() -> None:
    base = many(100, model="base")
    worse = [outcome(200 + i, task_success=i % 20 > 0) for i in range(100)]
    assert fired([*base, *worse]) == [("delta_over_baseline", "firing")]


@pytest.mark.req("M3")
def test_a_success_that_costs_more_tokens_than_the_bases_fires() -> None:
    base = many(100, model="base")
    assert fired([*base, *many(100, first=200, completion_tokens=40)]) == [
        ("cost_per_success", "firing")
    ]
    assert fired([*base, *many(100, first=200, completion_tokens=19)]) == []


@pytest.mark.req("M4")
def test_only_first_attempts_count_for_first_attempt_validity() -> None:
    retried = [outcome(i, attempt=2, schema_valid=i % 10 > 0) for i in range(200)]
    assert ("first_attempt_validity", "firing") not in fired(retried)
    first = [outcome(i, schema_valid=i % 10 > 0) for i in range(200)]
    assert ("first_attempt_validity", "firing") in fired(first)


@pytest.mark.req("M6")
def test_broken_tool_calls_fire_below_95_percent() -> None:
    good = many(94, tool_call_valid=True)
    assert fired([*good, *many(5, 94, tool_call_valid=False)]) == []
    assert fired([*good, *many(6, 94, tool_call_valid=False)]) == [("tool_call_success", "firing")]


@pytest.mark.req("M7")
@pytest.mark.req("M8")
def test_ungrounded_answers_and_one_unsupported_citation_fire() -> None:
    assert fired(many(20, grounding=0.79)) == [("grounding", "firing")]
    assert fired(many(20, grounding=0.81)) == []
    assert fired([outcome(1, citations_supported=False)]) == [("citation_support", "firing")]


@pytest.mark.req("M9")
@pytest.mark.req("M10")
@pytest.mark.parametrize(
    ("kind", "metric", "allowed"),
    [("override", "override_rate", 5), ("correction", "correction_rate", 15)],
)
def test_reports_above_their_rate_in_a_shift_fire_and_the_next_shift_resolves(
    kind, metric, allowed
) -> None:
    seen = many(100)
    reports = [feedback(i, kind, at=100.0) for i in range(allowed)]
    assert fired([*seen, *reports]) == []
    over = [*seen, *reports, feedback(99, kind, at=100.0)]
    assert fired(over) == [(metric, "firing")]
    later = [outcome(1000 + i, at=9 * HOUR_S + i) for i in range(100)]
    assert fired([*over, *later]) == [(metric, "firing"), (metric, "resolved")]


@pytest.mark.req("M11")
def test_one_false_refusal_fires() -> None:
    assert fired([*many(50), feedback(7, "false_refusal", at=50.0)]) == [
        ("refusal_accuracy", "firing")
    ]


@pytest.mark.req("M12")
def test_a_confirmed_incident_is_critical_and_asks_for_the_withdrawal_once() -> None:
    found = notices([outcome(1), *[feedback(i, "safety_incident") for i in (1, 1, 2)]])
    (notice,) = found
    assert (notice.alert.metric, notice.alert.severity) == ("safety_incidents", "critical")
    assert (notice.alert.taken, notice.alert.evidence) == ("withdraw", ("r1",))
    assert notice.withdraw is not None
    assert (notice.withdraw.ref.run, notice.withdraw.command.kind) == ("run-1", "safety_override")


@pytest.mark.req("M12")
def test_an_incident_of_the_base_alerts_and_withdraws_nothing() -> None:
    (notice,) = notices([feedback(1, "safety_incident", model="base", run=None)])
    assert (notice.alert.taken, notice.withdraw) == ("none", None)


@pytest.mark.req("M13")
def test_a_mirrored_candidate_that_fails_what_users_got_answered_fires() -> None:
    def pairs(failing: int) -> list[Outcome]:
        stream = []
        for i in range(100):
            stream.append(outcome(i, model="base"))
            stream.append(outcome(i, arm="shadow", task_success=i >= failing))
        return stream

    assert fired(pairs(2)) == []
    assert fired(pairs(3)) == [("regression_rate", "firing")]


@pytest.mark.req("M14")
@pytest.mark.parametrize("error", ["AdapterRefused", "DeadlineExceeded"])
def test_an_adapter_that_cannot_be_loaded_or_is_too_late_fires_at_once(error) -> None:
    broken = outcome(1, error=error, task_success=False, schema_valid=None)
    assert fired([broken]) == [("adapter_incidents", "firing")]
    other = outcome(1, error="ConstraintRefused", task_success=False, schema_valid=None)
    assert fired([other]) == []


@pytest.mark.req("M15")
def test_perplexity_beyond_one_and_a_half_times_the_beginnings_fires() -> None:
    began = many(200, answer_logprob=-10.0)  # 0.5 nats a token
    near = [outcome(i, at=25 * HOUR_S + i, answer_logprob=-17.9) for i in range(500, 700)]
    far = [outcome(i, at=25 * HOUR_S + i, answer_logprob=-18.3) for i in range(500, 700)]
    assert fired([*began, *near]) == []
    assert ("drift", "firing") in fired([*began, *far])


@pytest.mark.req("M15")
def test_requests_that_surprise_the_base_are_drift_whatever_the_answers_say() -> None:
    began = many(50, prompt_logprob=-99.0)  # of 100 tokens: one nat each but for the first
    near, far = (
        [outcome(i, at=25 * HOUR_S + i, prompt_logprob=p) for i in range(500, 550)]
        for p in (-139.0, -140.0)
    )
    assert notices([*began, *near]) == []
    assert [(notice.alert.kind, notice.alert.state) for notice in notices([*began, *far])] == [
        ("prompts", "firing")
    ]


@pytest.mark.req("M15")
def test_requests_far_from_the_dev_set_are_drift_of_their_own_beside_perplexitys() -> None:
    assert notices(many(50, semantic_distance=1.5)) == []
    assert notices(many(49, semantic_distance=3.0)) == []
    stream = [
        *many(200, answer_logprob=-10.0, semantic_distance=1.0),
        *[
            outcome(i, at=25 * HOUR_S + i, answer_logprob=-18.3, semantic_distance=1.6)
            for i in range(500, 700)
        ],
    ]
    found = [notice.alert for notice in notices(stream)]
    assert [(alert.metric, alert.kind, alert.state) for alert in found] == [
        ("drift", "meaning", "firing"),
        ("drift", "", "firing"),
    ]
    assert found[0].id != found[1].id
    assert found[0].evidence[0] == "r549"
    restored = Monitor(RULES)
    restored.restore(stream, found)
    assert {alert.kind for alert in restored.firing} == {"", "meaning"}
    calm = [outcome(i, at=50 * HOUR_S + i, semantic_distance=1.0) for i in range(800, 851)]
    over = [notice.alert for signal in calm for notice in restored.observe(signal)]
    assert [(alert.kind, alert.state) for alert in over] == [("meaning", "resolved")]
    assert over[0].id == found[0].id


@given(st.lists(st.tuples(st.floats(0, 48 * HOUR_S), st.booleans()), max_size=60))
def test_a_window_of_hours_holds_what_is_younger_than_its_hours(events) -> None:
    window, width = LastHours(8), 8 * HOUR_S / BUCKETS
    events = sorted(events)
    for number, (at, hit) in enumerate(events):
        window.add(str(number), at, Share(hit, 1, hit))
    now = int(events[-1][0] // width) if events else 0
    young = [hit for at, hit in events if int(at // width) > now - BUCKETS]
    assert window.sums.requests == len(young)
    assert window.sums.over == sum(young)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"signal": "mood"}, "no signal"),
        ({"hours": 1.0}, "either requests or hours"),
        ({"alert": 0.99}, "never resolve"),
        ({"reference": "base"}, "relation needs a reference"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(change, says) -> None:
    with pytest.raises(ValueError, match=says):
        Rule.model_validate({**RULES[0].model_dump(), **change})
