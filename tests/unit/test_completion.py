"""What a worker says of an ending, as its readers read it."""

from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.event import EventKind, TaskEvent
from orchestrator.outcome import Completed, Expired, Outcome
from orchestrator.runtime.completion import GROUP, GROUP_BYTES, Completion, Ending
from orchestrator.streams.connection import Streams
from orchestrator.streams.consumer import Delivery
from orchestrator.streams.names import ORCHESTRATOR, Keys
from orchestrator.task import Task, new_id

BEGAN = datetime(2026, 11, 29, 3, 0, 0, tzinfo=UTC)
ENDED = datetime(2026, 11, 29, 3, 0, 1, 230_000, tzinfo=UTC)


@pytest.mark.parametrize("worker", ["worker:host-1-ab12", 'worker:a "quoted"\\ host-é'])
@pytest.mark.parametrize("crashes", [0, 2])
@pytest.mark.parametrize("began", [BEGAN, None])
def test_the_text_of_a_success_is_the_event(worker, crashes, began):
    """Put together as text, it says every field of a TaskEvent that it should, and no other."""
    completion = Completion(
        Streams("redis://nowhere.invalid", Keys("t")), group=ORCHESTRATOR, consumer=worker,
        marker_ttl=timedelta(hours=1), on_finished=print,
    )  # fmt: skip
    task = Task(task_id=new_id(), agent="shout.v-1_a", input={})

    said = completion._event(
        Ending(
            delivery=Delivery("t:agent:tasks", "1-0", {}), outcome=Completed(b'{"a":["b"]}'),
            task_id=task.task_id, task=task, attempt=3, crashes=crashes,
            started_at=began, finished_at=ENDED,
        )
    )  # fmt: skip

    assert TaskEvent.model_validate_json(said) == TaskEvent(
        task_id=task.task_id, agent=task.agent, event=EventKind.SUCCEEDED, at=ENDED, attempt=3,
        crashes=crashes, output={"a": ["b"]}, worker=worker, started_at=began, finished_at=ENDED,
    )  # fmt: skip


def ending(outcome: Outcome) -> Ending:
    return Ending(Delivery("t:agent:tasks", "1-0", {}), outcome, new_id(), ENDED)


def test_a_group_is_bounded_by_number_and_by_size():
    """A hundred results of 8 MB in one script call stalled Redis past every time-out, for ever."""
    small, large = ending(Expired()), ending(Completed(b"x" * (GROUP_BYTES // 2)))
    completion = Completion(
        Streams("redis://nowhere.invalid", Keys("t")), group=ORCHESTRATOR, consumer="w",
        marker_ttl=timedelta(hours=1), on_finished=print,
    )  # fmt: skip
    larger = ending(Completed(b"x" * (2 * GROUP_BYTES)))
    for each in [small] * (GROUP + 1) + [large] * 4 + [larger, small]:
        completion.add(each)

    groups = [completion._next_group() for _ in range(5)]

    assert groups == [
        [small] * GROUP, [small, large, large], [large, large], [larger], [small],
    ]  # fmt: skip
    assert not completion.busy
