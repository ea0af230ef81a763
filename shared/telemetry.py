"""OpenTelemetry: one trace per run across services.

The trace context travels in the `traceparent` header of every event, so a step's span is the child
of the step that caused it, whichever process that was. With no collector configured, finished spans
go to `<home>/traces/<service>.jsonl`, one JSON object a line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_PROPAGATOR = TraceContextTextMapPropagator()
_TRACER = "sluiceway"


class FileSpanExporter(SpanExporter):
    """Appends finished spans to a JSON Lines file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        lines = [json.dumps(json.loads(span.to_json(indent=None))) + "\n" for span in spans]
        try:
            with self._path.open("a", encoding="utf-8") as out:
                out.writelines(lines)
        except OSError:  # a full disk costs the trace, never the step
            return SpanExportResult.FAILURE
        return SpanExportResult.SUCCESS


def configure(service: str, *, home: Path, otlp_endpoint: str | None) -> None:
    """Install this process's tracer provider. Call once, from `create_app`'s caller."""
    provider = TracerProvider(
        resource=Resource.create({"service.name": service, "service.namespace": "sluiceway"})
    )
    if otlp_endpoint:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        exporter = OTLPSpanExporter(endpoint=f"{otlp_endpoint.rstrip('/')}/v1/traces")
        provider.add_span_processor(BatchSpanProcessor(exporter))
    else:
        exporter_file = FileSpanExporter(home / "traces" / f"{service}.jsonl")
        provider.add_span_processor(SimpleSpanProcessor(exporter_file))
    trace.set_tracer_provider(provider)


@contextmanager
def span(
    name: str,
    *,
    traceparent: str | None = None,
    kind: SpanKind = SpanKind.INTERNAL,
    attributes: Mapping[str, str | int | float] | None = None,
) -> Iterator[Span]:
    """A span, the child of `traceparent` where one is given. An exception marks it failed."""
    parent = parent_of(traceparent) if traceparent else None
    with trace.get_tracer(_TRACER).start_as_current_span(
        name,
        context=parent,
        kind=kind,
        attributes=dict(attributes or {}),
        record_exception=True,
        set_status_on_exception=False,
    ) as current:
        try:
            yield current
        except Exception as error:
            current.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))
            raise


def parent_of(traceparent: str) -> Context:
    """The context whose span is the one `traceparent` names."""
    return _PROPAGATOR.extract({"traceparent": traceparent})


def current_traceparent() -> str | None:
    """The W3C `traceparent` of the span under way, if there is one."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return carrier.get("traceparent")
