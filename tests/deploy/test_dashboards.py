"""Dashboards and alert rules ask for metrics and labels that exist, and nothing else."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import nats
import pytest
import yaml
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from prometheus_client import REGISTRY

from contracts import subjects
from contracts.alerts import Alert
from contracts.base import Service
from contracts.telemetry import Feedback, Outcome
from shared.messaging.embedded import free_port
from shared.messaging.provision import provision
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


@pytest.mark.req("M16")
async def test_a_service_answers_prometheus(nats_server, settings) -> None:
    connection = await nats.connect(nats_server.url)
    await provision(connection.jetstream())
    for signal in provoked_by("grounding"):
        place = subjects.telemetry(signal.tenant, signal.deployment)
        await connection.publish(place, signal.model_dump_json().encode())
    await connection.flush()
    port = free_port()
    first = port - list(Service).index(Service.MONITORING)
    service = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.monitoring",
        env={
            **os.environ,
            "SLUICE_HOME": str(settings.home),
            "SLUICE_NATS_URL": nats_server.url,
            "SLUICE_METRICS_PORT": str(first),
        },
    )

    def scrape() -> str:
        url = f"http://127.0.0.1:{port}/metrics"
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""

    try:
        async with asyncio.timeout(30):
            while 'sluice_metric="grounding"' not in (text := await asyncio.to_thread(scrape)):
                await asyncio.sleep(0.1)
        assert "sluice_monitoring_signals_total" in text
        assert "sluice_alerts_firing{" in text
    finally:
        service.terminate()
        await service.wait()
        await connection.close()
