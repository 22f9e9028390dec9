"""A collector of OpenTelemetry traces: an HTTP server that decodes and keeps what it is sent."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

PATH = "/v1/traces"


@dataclass(frozen=True)
class Seen:
    """One span as it arrived."""

    name: str
    kind: int  # 1 internal, 2 server, 3 client, 4 producer, 5 consumer
    trace_id: str
    span_id: str
    parent_id: str
    links: tuple[str, ...]  # span ids
    status: int  # 2: error
    attributes: Mapping[str, Any]
    resource: Mapping[str, Any]


@dataclass
class Collector:
    """What has arrived. `answer` is the status that it gives."""

    url: str = ""
    answer: int = 200
    spans: list[Seen] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    requests: int = 0

    @property
    def environment(self) -> dict[str, str]:
        """The variables of a process that sends here, soon after each span's end."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}

    def named(self, name: str) -> list[Seen]:
        """The spans of this name."""
        return [each for each in self.spans if each.name == name]

    def names(self, trace_id: str) -> set[str]:
        """The names of a trace's spans."""
        return {each.name for each in self.spans if each.trace_id == trace_id}

    def holds(self, text: str) -> bool:
        """True where it stands anywhere in what was sent, names and events included."""
        return any(text.encode() in each for each in self.raw)

    def take(self, body: bytes) -> None:
        """Decode one request."""
        self.raw.append(body)
        for of_process in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = _values(of_process.resource.attributes)
            for of_library in of_process.scope_spans:
                self.spans += [
                    Seen(
                        name=each.name,
                        kind=each.kind,
                        trace_id=each.trace_id.hex(),
                        span_id=each.span_id.hex(),
                        parent_id=each.parent_span_id.hex(),
                        links=tuple(link.span_id.hex() for link in each.links),
                        status=each.status.code,
                        attributes=_values(each.attributes),
                        resource=resource,
                    )
                    for each in of_library.spans
                ]


@contextmanager
def collector() -> Iterator[Collector]:
    """One that listens on loopback."""
    found = Collector()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.requests += 1
            if found.answer == 200 and self.path == PATH:
                found.take(body)
            self.send_response(found.answer if self.path == PATH else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    found.url = f"http://127.0.0.1:{server.server_port}"
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    serving.start()
    try:
        yield found
    finally:
        server.shutdown()
        serving.join()
        server.server_close()


def _values(found: Any) -> dict[str, Any]:
    return {each.key: _value(each.value) for each in found}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, kind) if kind else None
