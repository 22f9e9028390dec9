"""The tail of the results stream: what it takes for an end, and what it passes over."""

import json

import pytest

from orchestrator.event import EventKind
from orchestrator.streams.connection import Streams
from orchestrator.streams.names import Keys
from orchestrator.streams.tail import RECENT, RECENT_BYTES, ResultTail
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


@pytest.mark.parametrize(("ends", "size"), [(RECENT + 10, 100), (9, RECENT_BYTES // 4)])
def test_ends_are_remembered_up_to_a_number_and_up_to_a_size(tail, ends, size):
    """P8: ten thousand results of 8 MB would be 80 GB, in every process that waits for one."""
    for n in range(1, ends + 1):
        tail._hear(tail._end(f"{n}-0", entry("succeeded")), f"{n}-0", size)
    known = tail._end("1-0", entry("succeeded"))
    for _ in range(3):  # the same end again is no more of it
        tail._hear(known, f"{ends + 1}-0", size)

    kept = len(tail._recent)
    assert kept == min(RECENT, RECENT_BYTES // size)
    assert tail._recent_bytes == kept * size
    assert tail._heard_from == (ends + 1, 0)  # a wait from before looks at the stream again
