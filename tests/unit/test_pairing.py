"""Which tasks wait for their end."""

from datetime import UTC, datetime

from orchestrator.event import EventKind, TaskEvent
from orchestrator.record import HeardEvent, SeenTask
from orchestrator.services.decoding import Item
from orchestrator.services.pairing import HOLD, MOST, MOST_BYTES, Pairing
from orchestrator.streams.consumer import Delivery
from orchestrator.task import Task, new_id

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def seen(task_id: str, entry: int = 1, size: int = 10) -> Item:
    task = Task(task_id=task_id, agent="noop", input={})
    delivery = Delivery(stream="tasks", entry_id=f"{entry}-0", fields={b"data": b"x" * size})
    message = SeenTask(
        task=task, digest="d", stream="tasks", entry_id=f"{entry}-0", at=NOW, said_by="test"
    )
    return Item(delivery, message)


def heard(task_id: str, kind: EventKind = EventKind.SUCCEEDED) -> Item:
    event = TaskEvent(task_id=task_id, agent="noop", event=kind, at=NOW)
    delivery = Delivery(stream="results", entry_id="9-0", fields={})
    return Item(
        delivery,
        HeardEvent(event=event, stream="results", entry_id="9-0", at=event.at, said_by="w"),
    )


def ids() -> list[str]:
    return [new_id() for _ in range(3)]


def test_nothing_waits_while_no_ends_come():
    a, b, _ = ids()
    pairing = Pairing()
    assert pairing.ready([seen(a), seen(b)], 10.0) == [seen(a), seen(b)]
    assert pairing.due_in(10.0) is None


def test_a_task_waits_for_its_end_and_goes_with_it():
    a, b, c = ids()
    pairing = Pairing()
    assert pairing.ready([seen(a), heard(c)], 10.0) == [heard(c)]
    assert pairing.due_in(10.25) == HOLD - 0.25
    assert pairing.ready([heard(a), seen(b)], 10.2) == [seen(a), heard(a)]
    assert pairing.held == [seen(b)]


def test_any_news_of_a_task_lets_it_go():
    a, b, _ = ids()
    pairing = Pairing()
    pairing.ready([seen(a), heard(b)], 10.0)
    started = heard(a, EventKind.STARTED)
    assert pairing.ready([started], 10.1) == [seen(a), started]


def test_a_task_and_its_end_in_one_batch_do_not_wait():
    a, b, _ = ids()
    assert Pairing().ready([heard(a), seen(a), heard(b)], 10.0) == [seen(a), heard(a), heard(b)]


def test_a_call_of_a_model_comes_after_its_task_and_before_what_was_said_later():
    a, c, _ = ids()
    pairing = Pairing()
    call, end = heard(a, EventKind.USAGE), heard(a)
    assert pairing.ready([seen(a), heard(c)], 10.0) == [heard(c)]
    assert pairing.ready([call], 10.1) == [seen(a), call]
    assert pairing.ready([call, end], 10.2) == [call, end]


def test_nothing_waits_longer_than_it_should():
    a, b, c = ids()
    pairing = Pairing()
    pairing.ready([seen(a), heard(c)], 10.0)
    pairing.ready([seen(b), heard(c)], 10.3)
    assert pairing.ready([heard(c)], 10.5) == [seen(a), heard(c)]
    assert pairing.ready([], 10.9) == [seen(b)]
    assert pairing.due_in(11.0) is None


def test_when_ends_stop_coming_everything_goes():
    a, b, c = ids()
    pairing = Pairing()
    pairing.ready([seen(a), heard(c)], 10.0)
    assert pairing.ready([seen(b)], 10.0 + HOLD) == [seen(a), seen(b)]


def test_a_second_message_of_a_task_does_not_overtake_the_first():
    a, c, _ = ids()
    pairing = Pairing()
    assert pairing.ready([heard(c), seen(a, 1)], 10.0) == [heard(c)]
    assert pairing.ready([heard(c), seen(a, 2)], 10.1) == [seen(a, 1), seen(a, 2), heard(c)]
    assert pairing.held == []


def test_it_is_full_by_number_and_by_size():
    by_number, by_size, c = Pairing(), Pairing(), new_id()
    by_number.ready([*(seen(new_id()) for _ in range(MOST)), heard(c)], 10.0)
    assert by_number.full
    big = [seen(new_id(), size=MOST_BYTES // 2) for _ in range(2)]
    by_size.ready([big[0], heard(c)], 10.0)
    assert not by_size.full
    by_size.ready([big[1]], 10.1)
    assert by_size.full
    by_size.ready([heard(big[0].message.task.task_id)], 10.2)
    assert not by_size.full
