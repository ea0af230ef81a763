"""What services push over OTLP arrives, decoded by the protocol's own messages."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import nats
import pytest
import yaml
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

from shared.messaging.provision import provision
from shared.metrics import METER, Answers, provider
from tests.deploy.monitoring_process import monitoring
from tests.deploy.otlp_receiver import receiving
from tests.deploy.test_dashboards import feedback, outcome
from tests.integration.rollouts import register, until

COLLECTOR = Path(__file__).parents[2] / "deploy" / "otel" / "collector.yaml"


@pytest.mark.req("M16")
async def test_a_service_pushes_its_metrics(nats_server, settings) -> None:
    with receiving() as received:
        async with monitoring(nats_server, settings, SLUICE_OTLP_ENDPOINT=received.endpoint):
            async with asyncio.timeout(60):
                while "monitoring" not in received.series():
                    await asyncio.sleep(0.2)
        assert set(received.series()["monitoring"]) >= {
            "sluice.alerts.firing",
            "sluice.alerts",
            "sluice.monitoring.signals",
        }


@pytest.mark.req("P5")
async def test_a_service_pushes_the_spans_of_its_steps(nats_server, settings) -> None:
    connection = await nats.connect(nats_server.url)
    jetstream = connection.jetstream()
    await provision(jetstream)
    with receiving() as received:
        own = {
            "SLUICE_HOME": str(settings.home),
            "SLUICE_NATS_URL": nats_server.url,
            "SLUICE_OTLP_ENDPOINT": received.endpoint,
        }
        service = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "services.rollout", env={**os.environ, **own}
        )
        await register(jetstream)
        await until(jetstream, lambda run: run.stage)
        service.terminate()  # what is in its queue is sent before it ends
        await service.wait()
    assert received.spans()["rollout"] >= {"rollout-begin"}
    assert not (settings.home / "traces" / "rollout.jsonl").exists()
    await connection.close()


@pytest.mark.req("M16")
def test_answers_are_pushed_under_the_names_and_units_of_the_genai_conventions() -> None:
    with receiving() as received:
        exporter = OTLPMetricExporter(endpoint=f"{received.endpoint}/v1/metrics")
        made = provider("serving", [PeriodicExportingMetricReader(exporter)])
        answers = Answers(made.get_meter(METER))
        for signal in (outcome(), outcome(request_id="r2", error="TimeoutError"), feedback()):
            answers.record(signal)
        made.shutdown()
    assert received.series()["serving"] == {
        "gen_ai.server.request.duration": "s",
        "gen_ai.server.time_to_first_token": "s",
        "gen_ai.server.time_per_output_token": "s",
        "gen_ai.client.token.usage": "{token}",
        "sluice.outcomes": "",
        "sluice.feedback": "",
    }


def test_the_collector_listens_where_the_services_of_compose_push() -> None:
    config = yaml.safe_load(COLLECTOR.read_text(encoding="utf-8"))
    http = config["receivers"]["otlp"]["protocols"]["http"]["endpoint"]
    compose = (COLLECTOR.parents[1] / "compose.yaml").read_text(encoding="utf-8")
    assert f"otel-collector:{http.rsplit(':', 1)[1]}" in compose
    for pipeline in config["service"]["pipelines"].values():
        for kind in ("receivers", "processors", "exporters"):
            declared = {*config[kind], *config["connectors"]}
            assert set(pipeline.get(kind, ())) <= declared
