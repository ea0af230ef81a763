"""An OTLP receiver over HTTP: what a collector's `otlp` receiver decodes, kept for a test."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


class Received:
    """Everything that was exported here."""

    def __init__(self, port: int) -> None:
        self.endpoint = f"http://127.0.0.1:{port}"
        self.traces: list[ExportTraceServiceRequest] = []
        self.metrics: list[ExportMetricsServiceRequest] = []

    def spans(self) -> dict[str, set[str]]:
        """Service name → names of its spans."""
        found: dict[str, set[str]] = {}
        for request in self.traces:
            for part in request.resource_spans:
                names = {span.name for scope in part.scope_spans for span in scope.spans}
                found.setdefault(service_of(part.resource), set()).update(names)
        return found

    def series(self) -> dict[str, dict[str, str]]:
        """Service name → metric name → unit."""
        found: dict[str, dict[str, str]] = {}
        for request in self.metrics:
            for part in request.resource_metrics:
                names = {m.name: m.unit for scope in part.scope_metrics for m in scope.metrics}
                found.setdefault(service_of(part.resource), {}).update(names)
        return found


def service_of(resource) -> str:
    attributes = {item.key: item.value.string_value for item in resource.attributes}
    assert attributes["service.namespace"] == "sluiceway"
    return attributes["service.name"]


@contextmanager
def receiving() -> Iterator[Received]:
    """A receiver on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            assert self.headers["Content-Type"] == "application/x-protobuf"
            if self.path == "/v1/traces":
                received.traces.append(ExportTraceServiceRequest.FromString(body))
                answer = ExportTraceServiceResponse().SerializeToString()
            elif self.path == "/v1/metrics":
                received.metrics.append(ExportMetricsServiceRequest.FromString(body))
                answer = ExportMetricsServiceResponse().SerializeToString()
            else:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    received = Received(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield received
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
