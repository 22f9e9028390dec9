"""The tail of the results stream: what it takes for an end, and what it passes over."""

import json

import pytest

from orchestrator.event import EventKind
from orchestrator.streams.connection import Streams
from orchestrator.streams.names import Keys
from orchestrator.streams.tail import ResultTail
from orchestrator.task import new_id


@pytest.fixture
def tail() -> ResultTail:
    return ResultTail(Streams("redis://nowhere.invalid", Keys("t")))


def entry(event: object) -> dict[bytes, bytes]:
    said = {"task_id": new_id(), "agent": "shout", "event": event, "attempt": 1}
    return {b"data": json.dumps(said).encode()}


@pytest.mark.parametrize("kind", EventKind)
def test_only_ends_are_heard(tail, kind):
    """Every end is, and nothing that comes before one."""
    heard = tail._end("1-0", entry(kind.value))

    assert (heard is not None) == kind.state.is_terminal
    assert heard is None or heard.event is kind


@pytest.mark.parametrize("event", ["", "no kind", None, 1, 1.5, True, [], ["failed"], {"a": 1}])
def test_what_is_no_event_is_passed_over(tail, event):
    """P10: a stranger's message ends nobody's wait for others."""
    assert tail._end("1-0", entry(event)) is None
