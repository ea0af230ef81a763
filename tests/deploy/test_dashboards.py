"""Dashboards and alert rules ask for metrics and labels that exist, and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from prometheus_client import REGISTRY

from contracts.alerts import Alert
from contracts.telemetry import Feedback, Outcome
from services.serving.gauges import observe_routing
from shared.metrics import METER, Answers, Incidents, provider
from tests.monitoring.provocations import provoked_by

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARDS = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))
RULES = yaml.safe_load((DEPLOY / "prometheus" / "rules.yaml").read_text(encoding="utf-8"))
OTHERS = {
    # the collector's spanmetrics connector
    "traces_span_metrics_calls_total": {"service_name", "span_name", "status_code"},
    "traces_span_metrics_duration_milliseconds_bucket": {"service_name", "span_name", "le"},
    # prometheus-nats-exporter with -jsz=all
    "jetstream_consumer_num_pending": {"consumer_name", "stream_name"},
    "jetstream_stream_total_messages": {"stream_name"},
}
FUNCTIONS = {"histogram_quantile", "label_values"}


@pytest.fixture(scope="module")
def ours() -> Iterator[dict[str, set[str]]]:
    """Every series the services export, by name, with its labels."""
    made = provider("test", [PrometheusMetricReader()])
    meter = made.get_meter(METER)
    answers, firing = Answers(meter), [alert()]
    incidents = Incidents(lambda: firing, meter)
    for signal in (outcome(), outcome(error="TimeoutError"), feedback()):
        answers.record(signal)
    incidents.published(alert())
    incidents.took(3)
    observe_routing(lambda: 2, meter)
    found: dict[str, set[str]] = {}
    for family in REGISTRY.collect():
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    yield found
    made.shutdown()


def outcome(**changes: object) -> Outcome:
    fields = {
        "request_id": "r1",
        "tenant": "acme",
        "deployment": "assistant",
        "arm": "canary",
        "model": "Base-calls-v1",
        "at": 1.0,
        "latency_ms": 420.0,
        "time_to_first_token_ms": 80.0,
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "task_success": True,
    }
    return Outcome.model_validate({**fields, **changes})


def feedback() -> Feedback:
    (found,) = [s for s in provoked_by("safety_incidents") if isinstance(s, Feedback)]
    return found


def alert() -> Alert:
    sample = Path(__file__).parents[2] / "contracts" / "samples" / "alert.json"
    return Alert.model_validate_json(sample.read_text(encoding="utf-8"))


def expressions() -> Iterator[tuple[str, str]]:
    for path in DASHBOARDS:
        board = json.loads(path.read_text(encoding="utf-8"))
        for panel in board["panels"]:
            for target in panel["targets"]:
                yield f"{path.stem}: {panel['title']}", target["expr"]
        for variable in board.get("templating", {}).get("list", ()):
            yield f"{path.stem}: ${variable['name']}", variable["query"]
    for group in RULES["groups"]:
        for rule in group["rules"]:
            yield f"rule {rule['alert']}", rule["expr"]


def asked(expression: str) -> tuple[set[str], set[str]]:
    """The metrics and the labels an expression names."""
    labels = set(re.findall(r"([a-z_]+)(?:=~|!=|!~|=)\"", expression))
    for group in re.findall(r"\bby \(([^)]*)\)", expression):
        labels |= {name.strip() for name in group.split(",")}
    labels |= set(re.findall(r"label_values\([^,]+, ([a-z_]+)\)", expression))
    bare = re.sub(r"\{[^}]*\}|\bby \([^)]*\)|(?<=,) [a-z_]+(?=\)$)", "", expression)
    return set(re.findall(r"\b[a-z]+_[a-z_]+\b", bare)) - FUNCTIONS, labels


@pytest.mark.req("M16")
@pytest.mark.parametrize(
    ("where", "expression"), [pytest.param(*e, id=e[0]) for e in expressions()]
)
def test_every_metric_and_label_that_is_asked_for_exists(ours, where, expression) -> None:
    metrics, labels = asked(expression)
    known = {**ours, **OTHERS}
    assert metrics, where
    assert metrics <= set(known), f"{where}: {metrics - set(known)}"
    exported = set().union(*(known[name] for name in metrics))
    assert labels <= exported, f"{where}: {labels - exported}"


def test_a_made_up_metric_would_be_noticed(ours) -> None:
    metrics, _ = asked('sum by (a) (rate(sluice_made_up_total{b="c"}[5m]))')
    assert metrics == {"sluice_made_up_total"}
    assert metrics.isdisjoint(ours)


@pytest.mark.req("M16")
def test_answers_follow_the_genai_conventions(ours) -> None:
    duration = ours["gen_ai_server_request_duration_seconds_bucket"]
    assert {
        "gen_ai_operation_name",
        "gen_ai_provider_name",
        "gen_ai_request_model",
        "gen_ai_response_model",
        "error_type",
    } <= duration
    assert "gen_ai_token_type" in ours["gen_ai_client_token_usage_bucket"]
    assert "gen_ai_server_time_to_first_token_seconds_count" in ours
    assert "gen_ai_server_time_per_output_token_seconds_count" in ours
    everything = set().union(*ours.values())
    assert "request_id" not in everything
    assert not any("request_id" in label for label in everything)


def test_prometheus_loads_the_rules_that_compose_mounts() -> None:
    prometheus = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text())
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    mounts = compose["services"]["prometheus"]["volumes"]
    for name in prometheus["rule_files"]:
        assert f"./prometheus/{name}:/etc/prometheus/{name}:ro" in mounts
        assert (DEPLOY / "prometheus" / name).is_file()
    for group in RULES["groups"]:
        for rule in group["rules"]:
            assert rule["annotations"]["mend"]
