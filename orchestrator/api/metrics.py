"""Prometheus' view: how requests went, and the condition of the streams and the record.

Names and labels are an interface. No ids in labels: each value of a label is a series for ever.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.api.live import Live
from orchestrator.api.parts import ApiParts
from orchestrator.api.recently import Recently
from orchestrator.db import statistics as record_statistics
from orchestrator.db.statistics import RecordStatistics
from orchestrator.db.usage import Group
from orchestrator.errors import OrchestratorError
from orchestrator.streams import bridges, gates
from orchestrator.streams import statistics as stream_statistics
from orchestrator.streams.bridges import BridgeFigures
from orchestrator.streams.gates import GateFigures
from orchestrator.streams.statistics import StreamStatistics
from orchestrator.task import TaskState

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
KEEP = 5.0  # seconds; a scrape is usually every 15, two Prometheus servers share one look
_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What was found; None of a server that did not answer."""

    streams: list[StreamStatistics] | None
    record: RecordStatistics | None
    bridges: Sequence[BridgeFigures] = ()
    gates: Sequence[GateFigures] = ()


class Metrics:
    """One application's registry. Nothing global, so that two in one process do not meet."""

    def __init__(self, parts: ApiParts) -> None:
        """Store; nothing is asked before the first scrape."""
        self._parts = parts
        self._recently = Recently(self._look, keep=KEEP)
        self.registry = CollectorRegistry()
        self.condition = _ConditionCollector()
        self.registry.register(_LiveCollector(parts.live))
        self.registry.register(self.condition)
        self.requests = Histogram(
            "aurora_http_request_duration_seconds",
            "From the first byte of a request to the last of its answer.",
            ["method", "route", "status"],
            registry=self.registry,
        )

    async def render(self) -> bytes:
        """Prometheus' text format."""
        self.condition.found = await self._recently.get()
        return generate_latest(self.registry)

    async def _look(self) -> Condition:
        # A server that is away is itself news: the other one's figures are told all the same.
        streams = record = None
        found: Sequence[BridgeFigures] = ()
        closed: Sequence[GateFigures] = ()
        with suppress(OrchestratorError):
            streams = await stream_statistics.read(self._parts.streams)
            found = await bridges.read(self._parts.streams)
            closed = await gates.read(self._parts.streams)
        with suppress(OrchestratorError):
            record = await record_statistics.read(self._parts.database)
        return Condition(streams=streams, record=record, bridges=found, gates=closed)


class Measured:
    """Middleware: the duration of each request, by its route's template."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        """Store."""
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Observe once, also where the request raises."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status, began = 500, time.perf_counter()

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, sending)
        finally:
            method = scope["method"] if scope["method"] in _METHODS else "other"
            route = getattr(scope.get("route"), "path", "unmatched")
            self.metrics.requests.labels(method, route, str(status)).observe(
                time.perf_counter() - began
            )


class _ConditionCollector(Collector):
    """Turns what was found last into gauges."""

    def __init__(self) -> None:
        self.found = Condition(streams=None, record=None)

    def collect(self) -> Iterable[Metric]:
        build = GaugeMetricFamily("aurora_build_info", "Which version runs.", labels=["version"])
        build.add_metric([version("aurora-orchestrator")], 1)
        up = GaugeMetricFamily(
            "aurora_server_up", "1 when the server answered the last look.", labels=["server"]
        )
        up.add_metric(["redis"], int(self.found.streams is not None))
        up.add_metric(["postgres"], int(self.found.record is not None))
        yield build
        yield up
        yield from _of_streams(self.found.streams or ())
        if self.found.bridges:
            yield from _of_bridges(self.found.bridges)
        if self.found.gates:
            yield from _of_gates(self.found.gates)
        if self.found.record is not None:
            yield from _of_record(self.found.record)

    def describe(self) -> Iterable[Metric]:
        # Or registering would collect.
        return ()


class _LiveCollector(Collector):
    """Who follows live in this process."""

    def __init__(self, live: Live) -> None:
        self.live = live

    def collect(self) -> Iterable[Metric]:
        yield GaugeMetricFamily(
            "aurora_ws_clients", "WebSockets that are connected.", self.live.websockets
        )
        yield GaugeMetricFamily(
            "aurora_sse_clients", "Event streams that are followed.", self.live.event_streams
        )
        yield CounterMetricFamily(
            "aurora_relay_dropped",
            "Messages that live clients were too slow for; they come back for them.",
            self.live.dropped,
        )

    def describe(self) -> Iterable[Metric]:
        # Or registering would collect.
        return ()


def _of_streams(streams: Iterable[StreamStatistics]) -> Iterator[Metric]:
    length = GaugeMetricFamily(
        "aurora_stream_length_entries", "Entries on the stream.", labels=["stream"]
    )
    backlog, pending, oldest = (
        GaugeMetricFamily(f"aurora_stream_{name}", text, labels=["stream", "group"])
        for name, text in (
            ("backlog_entries", "Entries that the group has not been given yet."),
            ("pending_entries", "Entries that the group was given and has not acknowledged."),
            ("oldest_pending_seconds", "Age of the oldest of them."),
        )
    )
    for stream in streams:
        length.add_metric([stream.key], stream.length)
        for group in stream.groups:
            labels = [stream.key, group.group]
            backlog.add_metric(labels, group.backlog)
            pending.add_metric(labels, group.pending)
            oldest.add_metric(labels, group.oldest_pending)
    yield from (length, backlog, pending, oldest)


def _of_bridges(found: Iterable[BridgeFigures]) -> Iterator[Metric]:
    connected = GaugeMetricFamily(
        "aurora_mqtt_connected", "1 while the bridge has its broker.", labels=["client_id"]
    )
    messages = CounterMetricFamily(
        "aurora_mqtt_messages",
        "What became of MQTT messages since the bridge started.",
        labels=["client_id", "mapping", "outcome"],
    )
    for bridge in found:
        connected.add_metric([bridge.client_id], int(bridge.connected))
        for (mapping, outcome), count in bridge.messages.items():
            messages.add_metric([bridge.client_id, mapping, outcome], count)
    yield from (connected, messages)


def _of_gates(found: Iterable[GateFigures]) -> Iterator[Metric]:
    closed, waiting, pace = (
        GaugeMetricFamily(f"aurora_provider_{name}", text, labels=["provider"])
        for name, text in (
            ("gate_closed_seconds", "Until calls of this provider key may go on; 0: they may."),
            ("waiting_calls", "Calls of models that wait for their provider."),
            ("pace_requests", "A second, that it was learned to let in; absent: as they come."),
        )
    )
    for gate in found:
        closed.add_metric([gate.provider], gate.closed)
        waiting.add_metric([gate.provider], gate.waiting)
        if gate.pace is not None:
            pace.add_metric([gate.provider], gate.pace)
    yield from (closed, waiting, pace)


def _of_record(record: RecordStatistics) -> Iterator[Metric]:
    tasks = GaugeMetricFamily(
        "aurora_tasks", "Tasks by state; those that succeeded are not counted.", labels=["state"]
    )
    for state in TaskState:
        if state is not TaskState.SUCCEEDED:
            tasks.add_metric([state.value], record.tasks.get(state.value, 0))
    waiting = GaugeMetricFamily(
        "aurora_tasks_oldest_waiting_seconds",
        "How long the oldest due task of the queue has waited; 0 when none does.",
        labels=["queue"],
    )
    for queue in sorted({"default", *record.oldest_waiting}):
        waiting.add_metric([queue], record.oldest_waiting.get(queue, 0.0))
    unpublished = GaugeMetricFamily(
        "aurora_tasks_unpublished", "Accepted tasks that wait in Postgres for room in Redis."
    )
    unpublished.add_metric([], record.unpublished)
    letters = GaugeMetricFamily("aurora_dead_letters_open", "Dead letters nobody has dealt with.")
    letters.add_metric([], record.dead_letters_open)
    yield from (tasks, waiting, unpublished, letters)
    yield from _of_models(record.spent)


def _of_models(spent: Iterable[Group]) -> Iterator[Metric]:
    requests, tokens, cost, unpriced, tool_calls = (
        CounterMetricFamily(f"aurora_model_{name}", text, labels=["agent", "model", *more])
        for name, text, more in (
            ("requests", "Calls of models that were answered.", ()),
            (
                "tokens",
                "Tokens of models, input and output; cached ones are part of the input.",
                ("type",),
            ),
            ("cost_usd", "US dollars, of the calls whose price is known.", ()),
            ("unpriced_requests", "Calls whose price is not known: no part of the cost.", ()),
            ("tool_calls", "Calls of tools that models asked for.", ()),
        )
    )
    # OpenTelemetry's name for it, as Prometheus spells it; sum and count, without its buckets.
    standard = SummaryMetricFamily(
        "gen_ai_client_token_usage",
        "Tokens of a call of a model.",
        labels=["gen_ai_agent_name", "gen_ai_provider_name", "gen_ai_request_model",
                "gen_ai_token_type"],
    )  # fmt: skip
    for each in spent:
        labels, usage = [each.agent or "", each.model or ""], each.usage
        requests.add_metric(labels, usage.requests)
        tokens.add_metric([*labels, "input"], usage.input_tokens)
        tokens.add_metric([*labels, "output"], usage.output_tokens)
        tokens.add_metric([*labels, "cached"], usage.cached_tokens)
        cost.add_metric(labels, float(usage.cost_usd or 0))
        unpriced.add_metric(labels, usage.unpriced_requests)
        tool_calls.add_metric(labels, usage.tool_calls)
        provider, _, model = (each.model or "").rpartition(":")
        for kind, count in (("input", usage.input_tokens), ("output", usage.output_tokens)):
            standard.add_metric(
                [each.agent or "", provider, model, kind],
                count_value=usage.requests,
                sum_value=count,
            )
    yield from (requests, tokens, cost, unpriced, tool_calls, standard)
