"""A batch goes through each step together; what is refused neither stops it nor moves another."""

import json
from collections.abc import Sequence

import pytest

from orchestrator import Agent
from orchestrator.errors import DeadReason
from orchestrator.outcome import SetAside
from orchestrator.record import HeardEvent, SeenTask
from orchestrator.registry import AgentRegistry
from orchestrator.runtime.completion import Ending
from orchestrator.runtime.flight import READ_PAST, Boarding, Flight
from orchestrator.services.decoding import PAST_OUTPUT, Decoder
from orchestrator.streams.consumer import Delivery
from orchestrator.task import content_digest, derived_id, new_id

MOST = 2_000  # bytes
RESULTS, TASKS = "t:agent:results", "t:agent:tasks"


class Echo(Agent[dict, dict]):
    """Known here."""


def entry(place: int, data: dict | bytes, *, stream: str = TASKS, **fields: str) -> Delivery:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return Delivery(
        stream, f"1795910400000-{place}",
        {b"data": raw} | {name.encode(): each.encode() for name, each in fields.items()},
    )  # fmt: skip


@pytest.fixture
def tasks() -> Sequence[Delivery]:
    """Good ones between: no JSON, no agent, of a name nobody knows, too large, far too large."""
    asked = [
        {"agent": "echo", "input": {"n": 0}},
        b"{",
        {"agent": "echo", "input": {"n": 2}},
        {"input": {}},
        {"agent": "nobody", "input": {}},
        {"agent": "echo", "input": {"text": "x" * MOST}},
        {"agent": "echo", "input": {"text": "x" * (READ_PAST * MOST)}},
        {"agent": "echo", "input": {"n": 7}},
    ]
    return [entry(place, data, id=new_id()) for place, data in enumerate(asked)]


def test_a_worker_boards_each_in_its_place(tasks):
    """A flight of what may start, an ending with the reason of what may not."""
    boarding = Boarding(registry=AgentRegistry([Echo]), max_payload=MOST, max_starts=3)

    found = boarding.of(tasks)

    assert [each.delivery for each in found] == list(tasks)
    flights = {place: each for place, each in enumerate(found) if isinstance(each, Flight)}
    assert {place: each.task.input for place, each in flights.items()} == {
        0: {"n": 0}, 2: {"n": 2}, 7: {"n": 7},
    }  # fmt: skip
    assert all(each.digest == content_digest("echo", each.task.input) for each in flights.values())
    endings = {place: each for place, each in enumerate(found) if isinstance(each, Ending)}
    assert {place: (_reason(each), each.ends_task) for place, each in endings.items()} == {
        1: (DeadReason.MALFORMED, False),
        3: (DeadReason.MALFORMED, False),
        4: (DeadReason.UNKNOWN_AGENT, True),
        5: (DeadReason.TOO_LARGE, True),
        6: (DeadReason.TOO_LARGE, False),
    }
    # What could be read of an entry says whose it is; of the others, only where it stands.
    ids = {place: each.task_id for place, each in endings.items()}
    named = {place: tasks[place].fields[b"id"].decode() for place in (3, 4, 5)}
    assert ids == named | {place: derived_id(TASKS, tasks[place].entry_id) for place in (1, 6)}


def test_a_recorder_reads_each_in_its_place(tasks):
    """Values of what can be read; a letter of an event that cannot, of a task the worker's."""
    task_id = new_id()
    events = [
        entry(0, {"task_id": task_id, "agent": "echo", "event": "started"}, stream=RESULTS),
        entry(1, {"task_id": task_id, "agent": "echo", "event": "won"}, stream=RESULTS),
        entry(2, b"[]", stream=RESULTS),
        entry(3, {"task_id": task_id, "agent": "echo", "event": "usage"}, stream=RESULTS),
        entry(4, b'{"output": "%b"}' % (b"x" * PAST_OUTPUT * MOST), stream=RESULTS),
        entry(5, {"task_id": task_id, "agent": "echo", "event": "succeeded"}, stream=RESULTS),
    ]
    decoder = Decoder(RESULTS, max_payload=MOST, max_output=MOST)

    found = decoder.items([events[0], *tasks, *events[1:]])

    assert [each.delivery for each in found] == [*tasks, *events]
    seen = {place: each.message for place, each in enumerate(found[: len(tasks)]) if each.message}
    assert {place: each.task.input for place, each in seen.items()} == {
        0: {"n": 0}, 2: {"n": 2}, 4: {}, 7: {"n": 7},
    }  # fmt: skip
    assert all(isinstance(each, SeenTask) for each in seen.values())
    assert all(each.digest == each.task.digest for each in seen.values())
    assert not any(each.letter for each in found[: len(tasks)])
    heard = [
        each.message.event.event.value if isinstance(each.message, HeardEvent) else each.letter
        for each in found[len(tasks) :]
    ]
    assert (heard[0], heard[5]) == ("started", "succeeded")
    assert [(each.entry_id, each.reason) for each in heard[1:5]] == [
        (events[1].entry_id, DeadReason.MALFORMED),
        (events[2].entry_id, DeadReason.MALFORMED),
        (events[3].entry_id, DeadReason.MALFORMED),
        (events[4].entry_id, DeadReason.TOO_LARGE),
    ]


def _reason(ending: Ending) -> DeadReason:
    assert isinstance(ending.outcome, SetAside)
    return ending.outcome.reason
