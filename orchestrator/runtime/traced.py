"""An attempt with its span: the dispatcher calls this where its process is traced."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from orchestrator.outcome import (
    Completed,
    Crashed,
    Expired,
    Failed,
    HandedBack,
    Outcome,
    Postponed,
    Retrying,
    SetAside,
    Superseded,
)
from orchestrator.runtime.completion import Ending
from orchestrator.runtime.flight import Flight
from orchestrator.streams.consumer import Consumer
from orchestrator.task import Task

if TYPE_CHECKING:
    from orchestrator.tracing.spans import Processing, Tracing


async def traced(
    tracing: "Tracing", flight: Flight, consumer: Consumer, run: Callable[[], Awaitable[Outcome]]
) -> Outcome:
    """Run within the attempt's span, and say there what it came to."""
    with _span(tracing, flight.task, flight, consumer) as processing:
        try:
            outcome = await run()
        except asyncio.CancelledError:
            ended = HandedBack() if flight.dropped is None else Superseded(flight.dropped)
            _tell(processing, ended)
            raise
        _tell(processing, outcome)
        return outcome


def tell_unbegun(tracing: "Tracing", ending: Ending, consumer: Consumer) -> None:
    """A span of no length for a task that ends before it begins: its trace says why."""
    if ending.task is None or isinstance(ending.outcome, Postponed | Superseded):
        return
    with _span(tracing, ending.task, ending, consumer) as processing:
        _tell(processing, ending.outcome)


def _span(
    tracing: "Tracing", task: Task, of: Flight | Ending, consumer: Consumer
) -> AbstractContextManager["Processing"]:
    return tracing.processing(
        task,
        destination=of.delivery.stream,
        entry_id=of.delivery.entry_id,
        group=consumer.group,
        consumer=consumer.name,
        attempt=of.attempt,
    )


def _tell(processing: "Processing", outcome: Outcome) -> None:
    match outcome:
        case Completed():
            processing.came_to("succeeded", None)
        case Retrying(fault=fault) | Crashed(fault=fault):
            processing.came_to("retrying", fault.type)
        case Failed(fault=fault):
            processing.came_to("failed", fault.type)
        case SetAside(reason=reason):
            processing.came_to("dead", reason.value)
        case Expired():
            processing.came_to("expired", None)
        case HandedBack():
            processing.came_to("handed_back", None)
        case Superseded():
            processing.came_to("superseded", None)
        case Postponed():
            processing.came_to("scheduled", None)
