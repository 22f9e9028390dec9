"""Sends spans to a collector over OTLP/HTTP, with OpenTelemetry's SDK; `opening` calls this.

A collector that is away neither holds up nor fails anything: spans wait in a queue of bounded
length, those that do not fit are lost, and the log says once that it is so.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Status

from orchestrator.tracing.spans import Tracing

logger = logging.getLogger("aurora.tracing")

FLUSH = 3.0  # seconds for what is left at the end; a collector that is away holds nobody up
REASON = 300  # characters of what the exporter says
# What an exception says may quote a prompt, an answer or an input.
TELLING = frozenset({"exception.message", "exception.stacktrace"})
# They tell of every batch that is not delivered; the first one is enough, and it is ours to say.
_TALKATIVE = (
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.sdk._shared_internal",
)


def export(*, instance: str, content: bool, timeout: float | None) -> Tracing:
    """Spans that go to the collector which the variables name. Raises ValueError."""
    exporter = _Careful(OTLPSpanExporter(timeout=timeout), content=content)
    # Closed by us: its own way at exit would wait half a minute for a collector that is away.
    provider = TracerProvider(resource=_resource(instance), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Tracing(provider, exporting=_Exporting(provider, exporter), content=content)


def _resource(instance: str) -> Resource:
    """Who we are; what the variables say of it comes first."""
    ours = {
        "service.name": "aurora",
        "service.version": version("aurora-orchestrator"),
        "service.instance.id": instance,
    }
    return Resource.create({**ours, **OTELResourceDetector().detect().attributes})


class _Exporting:
    """Implements `spans.Exporting`."""

    def __init__(self, provider: TracerProvider, exporter: "_Careful") -> None:
        self._provider = provider
        self._exporter = exporter

    @property
    def delivering(self) -> bool:
        return self._exporter.delivering

    def flush(self) -> None:
        """Send what waits; blocks for the exporter's timeout at most."""
        self._provider.force_flush()

    async def close(self) -> None:
        """Send what is left, for a few seconds at most."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            self._provider.shutdown()
            with contextlib.suppress(RuntimeError):  # nobody waits any longer
                loop.call_soon_threadsafe(done.set)

        # A daemon, as the process shall end whatever becomes of it.
        threading.Thread(target=shut_down, name="aurora traces", daemon=True).start()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(done.wait(), FLUSH)


class _Careful(SpanExporter):
    """Leaves out what exceptions say, and tells of an outage once."""

    def __init__(self, exporter: OTLPSpanExporter, *, content: bool) -> None:
        self._exporter = exporter
        self._content = content
        self._reasons = _Reasons()
        for name in _TALKATIVE:
            logging.getLogger(name).addFilter(self._reasons)
        self.delivering = True
        self._lost = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        found = self._exporter.export(spans if self._content else [*map(_discreet, spans)])
        if found is SpanExportResult.SUCCESS:
            if not self.delivering:
                logger.info(
                    "traces arrive again; %d spans were lost", self._lost,
                    extra={"event": "traces.back"},
                )  # fmt: skip
            self.delivering, self._lost = True, 0
            return found
        if self.delivering:
            logger.warning(
                "traces do not arrive: %s", self._reasons.last, extra={"event": "traces.lost"}
            )
        self.delivering = False
        self._lost += len(spans)
        return found

    def shutdown(self) -> None:
        self._exporter.shutdown()  # type: ignore[no-untyped-call] # the SDK's


class _Reasons(logging.Filter):
    """Keeps what the SDK would log."""

    last = "no reason is known"

    def filter(self, record: logging.LogRecord) -> bool:
        self.last = record.getMessage()[:REASON]
        return False


def _discreet(span: ReadableSpan) -> ReadableSpan:
    """The same span without what exceptions say; nearly always the very same."""
    if not span.events and not span.status.description:
        return span
    said: dict[str, Any] = {
        "name": span.name,
        "context": span.context,
        "parent": span.parent,
        "resource": span.resource,
        "attributes": span.attributes,
        "links": span.links,
        "kind": span.kind,
        "start_time": span.start_time,
        "end_time": span.end_time,
        "instrumentation_scope": span.instrumentation_scope,
    }
    events = [Event(each.name, _untold(each), each.timestamp) for each in span.events]
    return ReadableSpan(**said, events=events, status=Status(span.status.status_code))


def _untold(event: Event) -> dict[str, Any]:
    return {k: v for k, v in (event.attributes or {}).items() if k not in TELLING}
