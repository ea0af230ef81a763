"""OpenTelemetry metrics: GenAI semantic conventions for what serving does, ours for the rest.

With a collector configured they are pushed to it. With `SLUICE_METRICS_PORT` set, each service
answers Prometheus at `http://127.0.0.1:<port>/metrics`: the first `contracts.base.Service` at that
port, the next one above it. With neither, recording costs next to nothing.
Names in Prometheus are these with `_` for `.` and the unit as a suffix.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource

from contracts.alerts import Alert
from contracts.base import Service
from contracts.serving import ServedAdapter
from contracts.telemetry import Feedback, Outcome
from shared.errors import Misconfigured

METER = "sluiceway"
PROVIDER = "sluiceway"
"""`gen_ai.provider.name`: our own engine."""
SECONDS = (
    0.005,
    0.01,
    0.02,
    0.04,
    0.08,
    0.16,
    0.32,
    0.64,
    1.28,
    2.56,
    5.12,
    10.24,
    20.48,
    40.96,
    81.92,
)
TOKENS = tuple(float(4**power) for power in range(10))
_EXPORT_EVERY_MS = 15_000


def provider(service: str, readers: Iterable[MetricReader]) -> MeterProvider:
    """A meter provider with the buckets that the conventions advise."""

    def buckets(unit: str, edges: tuple[float, ...]) -> View:
        return View(
            instrument_name="*",
            instrument_unit=unit,
            aggregation=ExplicitBucketHistogramAggregation(edges),
        )

    return MeterProvider(
        metric_readers=tuple(readers),
        resource=Resource.create({"service.name": service, "service.namespace": "sluiceway"}),
        views=(buckets("s", SECONDS), buckets("{token}", TOKENS)),
    )


def configure(service: Service, *, otlp_endpoint: str | None, first_port: int | None) -> None:
    """Install this process's meter provider. Call once, beside `shared.telemetry.configure`.

    Raises:
        Misconfigured: something else listens on the service's port.

    """
    readers: list[MetricReader] = []
    if otlp_endpoint:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

        exporter = OTLPMetricExporter(endpoint=f"{otlp_endpoint.rstrip('/')}/v1/metrics")
        readers.append(
            PeriodicExportingMetricReader(exporter, export_interval_millis=_EXPORT_EVERY_MS)
        )
    if first_port is not None:
        from opentelemetry.exporter.prometheus import PrometheusMetricReader
        from prometheus_client import start_http_server

        port = first_port + list(Service).index(service)
        try:
            start_http_server(port, addr="127.0.0.1")
        except OSError as error:
            raise Misconfigured(
                f"port {port} for metrics: {error.strerror}", mend="change SLUICE_METRICS_PORT"
            ) from error
        readers.append(PrometheusMetricReader())
    if readers:
        metrics.set_meter_provider(provider(service, readers))


class Answers:
    """What serving measures of each answer, and of people's feedback on it."""

    def __init__(self, meter: Meter | None = None) -> None:
        meter = meter or metrics.get_meter(METER)
        self._duration = meter.create_histogram(
            "gen_ai.server.request.duration", "s", "From the request to the end of its answer."
        )
        self._first_token = meter.create_histogram(
            "gen_ai.server.time_to_first_token", "s", "From the request to its first token."
        )
        self._each_token = meter.create_histogram(
            "gen_ai.server.time_per_output_token", "s", "Between tokens, after the first."
        )
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage", "{token}", "Tokens read and written."
        )
        self._verdicts = meter.create_counter(
            "sluice.outcomes", description="Answers by what the execution boundary said."
        )
        self._feedback = meter.create_counter(
            "sluice.feedback", description="What people made of answers."
        )

    def record(self, signal: Outcome | Feedback) -> None:
        """Count one signal. Request ids never become attributes: series stay bounded."""
        place = {
            "sluice.tenant": signal.tenant,
            "gen_ai.request.model": signal.deployment,
            "gen_ai.response.model": signal.model,
        }
        if isinstance(signal, Feedback):
            self._feedback.add(1, {**place, "sluice.feedback": signal.kind})
            return
        about = {
            **place,
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": PROVIDER,
            "sluice.arm": signal.arm,
        }
        failed = {"error.type": signal.error} if signal.error else {}
        self._duration.record(signal.latency_ms / 1e3, {**about, **failed})
        if signal.time_to_first_token_ms is not None:
            self._first_token.record(signal.time_to_first_token_ms / 1e3, about)
            if signal.completion_tokens > 1:
                rest_ms = signal.latency_ms - signal.time_to_first_token_ms
                self._each_token.record(rest_ms / 1e3 / (signal.completion_tokens - 1), about)
        self._tokens.record(signal.prompt_tokens, {**about, "gen_ai.token.type": "input"})
        self._tokens.record(signal.completion_tokens, {**about, "gen_ai.token.type": "output"})
        self._verdicts.add(1, {**about, "sluice.verdict": _verdict(signal)})


def _verdict(outcome: Outcome) -> str:
    if outcome.error:
        return "error"
    if outcome.schema_valid is False:
        return "schema_broken"
    if outcome.refused:
        return "refused"
    return "failed" if outcome.task_success is False else "succeeded"


class Residents:
    """What serving holds of adapters: bytes by adapter, and how many are loaded and pinned."""

    def __init__(
        self, resident: Callable[[], Iterable[ServedAdapter]], meter: Meter | None = None
    ) -> None:
        meter = meter or metrics.get_meter(METER)

        def weights(_: CallbackOptions) -> Iterable[Observation]:
            return [Observation(adapter.bytes or 0, _placed(adapter)) for adapter in resident()]

        def ranks(_: CallbackOptions) -> Iterable[Observation]:
            return [Observation(adapter.rank or 0, _placed(adapter)) for adapter in resident()]

        def counts(_: CallbackOptions) -> Iterable[Observation]:
            held = Counter((a.tier or "", a.pinned) for a in resident())
            return [
                Observation(count, {"sluice.tier": tier, "sluice.pinned": pinned})
                for (tier, pinned), count in held.items()
            ]

        meter.create_observable_gauge(
            "sluice.adapter.size", [weights], "By", "Weights of a loaded adapter."
        )
        meter.create_observable_gauge(
            "sluice.adapter.rank", [ranks], description="Rank of a loaded adapter."
        )
        meter.create_observable_gauge(
            "sluice.adapters.resident", [counts], description="Adapters that are loaded now."
        )


def _placed(adapter: ServedAdapter) -> dict[str, str]:
    return {
        "sluice.tenant": adapter.tenant,
        "gen_ai.response.model": adapter.id,
        "sluice.tier": adapter.tier or "",
    }


class Incidents:
    """What monitoring measures: open incidents, alerts it has published, outcomes it has seen."""

    def __init__(self, firing: Callable[[], Iterable[Alert]], meter: Meter | None = None) -> None:
        meter = meter or metrics.get_meter(METER)

        def observed(_: CallbackOptions) -> Iterable[Observation]:
            return [Observation(1, _about(alert)) for alert in firing()]

        meter.create_observable_gauge(
            "sluice.alerts.firing", [observed], description="Incidents that are open now."
        )
        self._alerts = meter.create_counter("sluice.alerts", description="Alerts published.")
        self._seen = meter.create_counter(
            "sluice.monitoring.signals", description="Outcomes and feedback taken in."
        )

    def published(self, alert: Alert) -> None:
        self._alerts.add(1, {**_about(alert), "sluice.state": alert.state})

    def took(self, count: int) -> None:
        self._seen.add(count)


def _about(alert: Alert) -> dict[str, str]:
    return {
        "sluice.tenant": alert.tenant,
        "gen_ai.request.model": alert.deployment,
        "gen_ai.response.model": alert.model,
        "sluice.metric": alert.metric,
        "sluice.severity": alert.severity,
    }
