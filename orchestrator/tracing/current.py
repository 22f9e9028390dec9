"""What may be asked of tracing without loading OpenTelemetry: is there any, and which trace is it.

The entry points set it (`app`), a child process for the agent it runs. Nothing here costs anything
where no exporter is configured.
"""

import re
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic_ai.models.instrumented import InstrumentationSettings

    from orchestrator.tracing.spans import Tracing

# W3C Trace Context, version 00 and those that look like it; an id of zeros is none.
_TRACEPARENT = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)

_tracing: ContextVar["Tracing | None"] = ContextVar("aurora_tracing", default=None)


def current_tracing() -> "Tracing | None":
    """What this code is traced with; None where no exporter is configured."""
    return _tracing.get()


def set_tracing(tracing: "Tracing | None") -> None:
    """Set for this context and what it starts."""
    _tracing.set(tracing)


def model_instrumentation() -> "InstrumentationSettings | None":
    """What an agent of pydantic-ai is instrumented with; None: not at all."""
    tracing = _tracing.get()
    return None if tracing is None else tracing.model_instrumentation


def log_fields() -> dict[str, str]:
    """`trace_id` and `span_id` for a line of the log; nothing outside of a span."""
    tracing = _tracing.get()
    return {} if tracing is None else tracing.log_fields()


def valid_traceparent(raw: bytes) -> str | None:
    """A `traceparent` that another program sent; None where it is none, whatever its length."""
    return None if _TRACEPARENT.fullmatch(raw) is None else raw.decode()
