"""Whether a process is traced, and what its spans may tell."""

import logging
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.tracing.current import (
    current_tracing,
    log_fields,
    model_instrumentation,
    set_tracing,
    valid_traceparent,
)
from orchestrator.tracing.opening import is_wanted, open_tracing
from tests.acceptance.thinking_agents import Secretive, thinker
from tests.collector import collector

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}
HEX = "0123456789abcdef"


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, False),
        (ENDPOINT, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, False),
        ({**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, True),
    ],
)
def test_opentelemetrys_own_variables_decide(environment, wanted, caplog):
    """As its specification has it; without any of them there is nothing, and nothing is said."""
    assert is_wanted(environment) is wanted
    assert not caplog.records


@pytest.mark.parametrize(
    ("variable", "value", "right"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "http/protobuf"),
        ("OTEL_TRACES_EXPORTER", "zipkin", "otlp"),
    ],
)
def test_a_way_that_is_not_ours_is_said_and_work_goes_on(variable, value, right, caplog):
    """P10: the variable, and what would be right."""
    found = open_tracing({**ENDPOINT, variable: value}, instance="w", content=False)

    assert found is None
    [record] = caplog.records
    assert variable in record.getMessage()
    assert right in record.getMessage()


def test_without_the_extra_the_log_says_what_to_install(monkeypatch, caplog):
    """P10: an endpoint without the packages is no reason not to work."""
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    monkeypatch.delitem(sys.modules, "orchestrator.tracing.exporting", raising=False)

    assert open_tracing(ENDPOINT, instance="w", content=False) is None
    assert "aurora-orchestrator[otel]" in caplog.text


def test_a_worker_without_an_exporter_loads_nothing_that_makes_spans():
    """What is not loaded costs nothing. (redis-py loads the interfaces where it finds them.)"""
    heavy = ("opentelemetry.sdk.trace", "opentelemetry.exporter", "orchestrator.tracing.spans")
    script = (
        "import sys, orchestrator.app, orchestrator.tracing.opening as o;"
        "assert o.open_tracing({}, instance='w', content=False) is None;"
        f"print([name for name in {heavy} if name in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=True)

    assert done.stdout.strip() == b"[]"


def test_a_program_that_has_set_opentelemetry_up_keeps_its_own_way_out():
    """Ours go where its spans go, as their children; closing is its own business."""
    script = """
import asyncio
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from orchestrator.tracing.opening import open_tracing

kept, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(kept))
trace.set_tracer_provider(provider)
tracing = open_tracing({}, instance="w", content=False)
with trace.get_tracer("theirs").start_as_current_span("theirs"):
    with tracing.sending([], destination="tasks", producer="w"):
        pass
asyncio.run(tracing.close())
with trace.get_tracer("theirs").start_as_current_span("later"):
    pass
ours, theirs, later = kept.get_finished_spans()
assert (ours.name, ours.parent.span_id) == ("send tasks", theirs.context.span_id)
assert later.name == "later"
"""

    subprocess.run([sys.executable, "-c", script], check=True)


def test_outside_of_tracing_there_is_nothing():
    """For whoever asks: the log, and an agent with a model."""
    assert (current_tracing(), model_instrumentation(), log_fields()) == (None, None, {})


@given(st.binary(max_size=80))
def test_only_a_traceparent_is_taken_for_one(raw):
    """W3C: 55 characters of hexadecimal and dashes, and no id of zeros."""
    found = valid_traceparent(raw)

    assert found is None or (len(found) == 55 and found.encode() == raw)


@given(st.text(HEX, min_size=32, max_size=32), st.text(HEX, min_size=16, max_size=16))
def test_every_traceparent_is_taken(trace_id, span_id):
    """Zeros alone are none."""
    given_one = f"00-{trace_id}-{span_id}-01"
    real = trace_id.strip("0") != "" and span_id.strip("0") != ""

    assert valid_traceparent(given_one.encode()) == (given_one if real else None)


@pytest.mark.parametrize("content", [False, True])
async def test_prompts_and_answers_are_told_only_where_somebody_wants_them(content, monkeypatch):
    """AURORA_TRACE_CONTENT; also what errors quote."""
    said = (
        "PROMPT-canary", "ANSWER-canary", "TOOL-canary", "INSTRUCTIONS-canary", "ERROR-canary",
        "OWN-canary",
    )  # fmt: skip
    with collector() as collected:
        for name, value in collected.environment.items():
            monkeypatch.setenv(name, value)
        tracing = open_tracing(collected.environment, instance="w", content=content)
        set_tracing(tracing)
        try:
            working, failing = thinker("ANSWER-canary"), thinker("ANSWER-canary")
            working.instrument = failing.instrument = model_instrumentation()
            await working.run("PROMPT-canary")

            @failing.tool_plain
            def fail() -> str:
                raise Secretive("ERROR-canary")

            with pytest.raises(Secretive):
                await failing.run("PROMPT-canary")
            # A span of the agent's own code: OpenTelemetry writes the exception into it.
            spans = tracing._provider.get_tracer("agent")
            with pytest.raises(Secretive), spans.start_as_current_span("own"):
                raise Secretive("OWN-canary")
        finally:
            set_tracing(None)
            await tracing.close()

    assert len(collected.named("invoke_agent thinker")) == 2
    assert [text for text in said if collected.holds(text)] == (list(said) if content else [])


async def test_an_outage_of_the_collector_is_said_once_and_its_end(monkeypatch, caplog):
    """However many batches are lost, and nothing of the library's own."""
    caplog.set_level(logging.INFO)
    with collector() as collected:
        for name, value in collected.environment.items():
            monkeypatch.setenv(name, value)
        tracing = open_tracing({**collected.environment}, instance="w", content=False, timeout=0.5)
        for answer in (500, 500, 200, 200):
            collected.answer = answer
            with tracing.request("POST", traceparent=None, attributes={}):
                pass
            tracing.flush()
            assert tracing.delivering is (answer == 200)
        await tracing.close()

    assert [each.event for each in caplog.records] == ["traces.lost", "traces.back"]
    assert len(collected.spans) == 2
