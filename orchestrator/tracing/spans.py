"""The spans of ours: names and attributes are OpenTelemetry's conventions for HTTP and messaging.

Loaded only where an exporter is configured. No attribute holds what a task was given or answered;
an error is told by its class alone, as its text may quote either.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib.metadata import version
from typing import TYPE_CHECKING, Protocol

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    ProxyTracerProvider,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    TracerProvider,
)

from orchestrator.task import Task

if TYPE_CHECKING:
    from pydantic_ai.models.instrumented import InstrumentationSettings

SYSTEM = "redis"
LONGEST = 200  # characters of what others may have chosen
SCHEDULE_ID = 36  # characters: what a scheduler writes is a UUID
Attributes = dict[str, str | int]


class Exporting(Protocol):
    """How spans leave the process (`exporting`)."""

    @property
    def delivering(self) -> bool: ...

    def flush(self) -> None: ...

    async def close(self) -> None: ...


class Tracing:
    """Makes one process' spans. It never asks whether anybody wants them: who has it does."""

    def __init__(
        self, provider: TracerProvider, *, exporting: Exporting | None = None, content: bool = False
    ) -> None:
        """Store. `exporting` is None where the spans are another's to send.

        `content`: models' prompts and answers stand in their spans.
        """
        self._provider = provider
        self._exporting = exporting
        self.content = content
        self._tracer = provider.get_tracer("orchestrator", version("aurora-orchestrator"))

    @property
    def delivering(self) -> bool:
        """False while the spans that were sent last did not arrive."""
        return self._exporting is None or self._exporting.delivering

    def everywhere(self) -> None:
        """Take the spans of everybody in this process, for whom nobody else has cared."""
        if isinstance(trace.get_tracer_provider(), ProxyTracerProvider):
            trace.set_tracer_provider(self._provider)

    def flush(self) -> None:
        """Send what waits, now."""
        if self._exporting is not None:
            self._exporting.flush()

    async def close(self) -> None:
        """Send what waits, for the last time."""
        if self._exporting is not None:
            await self._exporting.close()

    @cached_property
    def model_instrumentation(self) -> "InstrumentationSettings":
        """pydantic-ai's own spans, of the same trace."""
        from pydantic_ai.models.instrumented import (  # noqa: PLC0415 - an extra, and slow to load
            InstrumentationSettings,
        )

        return InstrumentationSettings(
            tracer_provider=self._provider,
            include_content=self.content,
            include_binary_content=False,
            # Instructions stand in them.
            include_model_request_parameters=self.content,
        )

    def log_fields(self) -> dict[str, str]:
        """The ids of the current span, as OpenTelemetry's logs name them."""
        found = trace.get_current_span().get_span_context()
        if not found.is_valid:
            return {}
        return {"trace_id": f"{found.trace_id:032x}", "span_id": f"{found.span_id:016x}"}

    def traceparent(self) -> str | None:
        """The current span as a message names it."""
        return _traceparent(trace.get_current_span())

    @contextmanager
    def under(self, traceparent: str | None) -> Iterator[None]:
        """Within it, what begins is a child of that span."""
        with trace.use_span(NonRecordingSpan(_context(traceparent))):
            yield

    @contextmanager
    def request(
        self, method: str, *, traceparent: str | None, attributes: Attributes
    ) -> Iterator[Span]:
        """A request that this process answers; the caller names it by its route at the end."""
        attributes = {name: str(value)[:LONGEST] for name, value in attributes.items()}
        with self._span(method, SpanKind.SERVER, traceparent, attributes) as span:
            yield span

    @contextmanager
    def sending(
        self, tasks: Sequence[Task], *, destination: str, producer: str
    ) -> Iterator[tuple[list[Task], "Sending"]]:
        """Tasks that are submitted together: the same ones, which name this span, and the span."""
        attributes = _messaging("send", destination, producer)
        if len(tasks) == 1:
            attributes |= _of_task(tasks[0])
        else:
            attributes["messaging.batch.message_count"] = len(tasks)
        # Not the current one: several may be open side by side.
        span = self._tracer.start_span(
            f"send {destination}", kind=SpanKind.PRODUCER, attributes=attributes
        )
        named = {"traceparent": _traceparent(span)}
        try:
            with _telling(span):
                yield [task.model_copy(update=named) for task in tasks], Sending(span)
        finally:
            span.end()

    @contextmanager
    def processing(
        self,
        task: Task,
        *,
        destination: str,
        entry_id: str,
        group: str,
        consumer: str,
        attempt: int,
    ) -> Iterator["Processing"]:
        """One attempt: a child of the span that sent the task, however often it is tried."""
        attributes = _messaging("process", destination, consumer) | _of_task(task)
        attributes["messaging.message.id"] = entry_id
        attributes["messaging.consumer.group.name"] = group
        attributes["aurora.attempt"] = attempt
        with self._span(
            f"process {destination}", SpanKind.CONSUMER, task.traceparent, attributes
        ) as span:
            yield Processing(span)

    @contextmanager
    def _span(
        self, name: str, kind: SpanKind, traceparent: str | None, attributes: Attributes
    ) -> Iterator[Span]:
        """A span whose parent came from elsewhere; without one it begins a trace."""
        sent_by = _context(traceparent)
        linked = kind is SpanKind.CONSUMER and sent_by.is_valid
        with (
            self._tracer.start_as_current_span(
                name,
                context=trace.set_span_in_context(NonRecordingSpan(sent_by), Context()),
                kind=kind,
                attributes=attributes,
                links=[Link(sent_by)] if linked else None,
                record_exception=False,
                set_status_on_exception=False,
            ) as span,
            _telling(span),
        ):
            yield span


class Sending:
    """A `send` span while it lasts."""

    def __init__(self, span: Span) -> None:
        self._span = span

    def sent(self, entry_id: str | None) -> None:
        """The entry of a single task; None: it is accepted, and published later."""
        if entry_id is not None:
            self._span.set_attribute("messaging.message.id", entry_id)


class Processing:
    """A `process` span while it lasts."""

    def __init__(self, span: Span) -> None:
        self._span = span

    def came_to(self, outcome: str, error: str | None) -> None:
        """What the attempt came to; `error` is the class of what went wrong."""
        self._span.set_attribute("aurora.outcome", outcome)
        if error is not None:
            failed(self._span, error)


def failed(span: Span, error: str) -> None:
    """Mark a span as failed, by the class of the error."""
    span.set_attribute("error.type", error[:LONGEST])
    span.set_status(StatusCode.ERROR)


@contextmanager
def _telling(span: Span) -> Iterator[None]:
    try:
        yield
    except asyncio.CancelledError:
        raise  # somebody wanted it to end
    except BaseException as error:
        failed(span, type(error).__name__)
        raise


def _messaging(operation: str, destination: str, client: str) -> Attributes:
    return {
        "messaging.system": SYSTEM,
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": destination,
        "messaging.client.id": client,
    }


def _of_task(task: Task) -> Attributes:
    found: Attributes = {
        "messaging.message.conversation_id": task.task_id,
        "aurora.task.id": task.task_id,
        "aurora.agent": task.agent,
        "aurora.queue": task.queue,
    }
    schedule = task.metadata.get("schedule_id")
    if isinstance(schedule, str) and len(schedule) <= SCHEDULE_ID:
        found["aurora.schedule.id"] = schedule
    return found


def _traceparent(span: Span) -> str | None:
    found = span.get_span_context()
    if not found.is_valid:
        return None
    return f"00-{found.trace_id:032x}-{found.span_id:016x}-{found.trace_flags & 0xFF:02x}"


def _context(traceparent: str | None) -> SpanContext:
    """The span that a valid traceparent names."""
    if traceparent is None:
        return trace.INVALID_SPAN_CONTEXT
    _, trace_id, span_id, flags = traceparent.split("-")
    return SpanContext(
        int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16))
    )
