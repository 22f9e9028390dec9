"""Decides whether this process is traced, by OpenTelemetry's own variables; the entry points ask.

A collector that cannot be had is no reason not to work: what is wrong is said in the log.
"""

import logging
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.tracing.spans import Tracing

logger = logging.getLogger("aurora.tracing")

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
HTTP = "http/protobuf"


def open_tracing(
    environment: Mapping[str, str],
    *,
    instance: str,
    content: bool,
    timeout: float | None = None,
) -> "Tracing | None":
    """What this process is traced with; None where nobody has asked for it.

    A program that has set OpenTelemetry up already (`opentelemetry-instrument`, its own code)
    keeps it, and its spans and ours go the same way. `timeout`: seconds for one export, default
    OpenTelemetry's.
    """
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    if (found := _already(content)) is not None:
        return found
    if not is_wanted(environment):
        return None
    try:
        from orchestrator.tracing.exporting import export  # noqa: PLC0415 - an extra

        return export(instance=instance, content=content, timeout=timeout)
    except ImportError as error:
        why = f"pip install 'aurora-orchestrator[otel]' ({error})"
    except ValueError as error:  # a variable that OpenTelemetry cannot read
        why = str(error)
    logger.warning("no traces are sent: %s", why, extra={"event": "traces.off"})
    return None


def is_wanted(environment: Mapping[str, str]) -> bool:
    """True where the variables name a way out for spans; what is no way of ours is said."""
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    named = any(environment.get(each, "").strip() for each in ENDPOINTS)
    if exporter == "none" or not (exporter or named):
        return False
    protocol = next(
        (found for each in PROTOCOLS if (found := environment.get(each, "").strip().lower())), HTTP
    )
    if exporter not in ("", "otlp"):
        problem = f"OTEL_TRACES_EXPORTER={exporter[:40]} is not supported; set it to otlp or none"
    elif protocol != HTTP:
        problem = (
            f"{PROTOCOLS[1]}={protocol[:40]} is not supported; set it to {HTTP}, and the endpoint"
            " to the collector's port for that (4318 as a rule)"
        )
    else:
        return True
    logger.warning("no traces are sent: %s", problem, extra={"event": "traces.off"})
    return False


def _already(content: bool) -> "Tracing | None":  # noqa: FBT001 - passed on
    if "opentelemetry.sdk.trace" not in sys.modules:
        return None  # nobody can have set it up
    from opentelemetry import trace  # noqa: PLC0415 - loaded already
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415

    from orchestrator.tracing.spans import Tracing  # noqa: PLC0415 - needs OpenTelemetry

    provider = trace.get_tracer_provider()
    return Tracing(provider, content=content) if isinstance(provider, TracerProvider) else None
