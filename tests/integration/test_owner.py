"""Who may end an attempt: the owner check, the end marker, and what may be deleted. Redis alone."""

from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.event import EventKind, TaskEvent
from orchestrator.outcome import Completed, Fault, Outcome, Retrying
from orchestrator.runtime.completion import Completion, Ending
from orchestrator.runtime.lease import hand_back
from orchestrator.streams.arbiter import Arbiter
from orchestrator.streams.connection import Streams
from orchestrator.streams.consumer import Consumer, Delivery
from orchestrator.streams.message import decode, decode_event, decode_task
from orchestrator.streams.names import ORCHESTRATOR, RECORDER, RESULTS, TASKS
from orchestrator.streams.pending import Entry
from orchestrator.streams.publisher import Publisher
from orchestrator.task import Task, TaskState, new_id

LEASE = timedelta(milliseconds=50)


class Member:
    """A worker as Redis sees it: a consumer, and the completion under its name."""

    def __init__(self, streams: Streams, name: str) -> None:
        self.streams = streams
        publisher = Publisher(streams, producer=name)
        self.consumer = Consumer(
            streams, group=ORCHESTRATOR, name=name, lease=LEASE, publisher=publisher
        )
        self.answers: list[str] = []
        self.completion = Completion(
            streams, group=ORCHESTRATOR, consumer=name, marker_ttl=timedelta(minutes=1),
            on_finished=lambda _, answer: self.answers.append(answer),
        )  # fmt: skip

    async def watch(self) -> "Member":
        await self.consumer.watch({self.streams.keys.tasks: TASKS})
        await self.streams.ensure_groups({self.streams.keys.results: RESULTS})
        return self

    async def take(self) -> Delivery:
        for _ in range(200):
            if got := await self.consumer.read(1):
                return got[0]
        raise AssertionError("nothing came")

    async def begin(self, delivery: Delivery) -> str:
        task = task_of(delivery)
        (answer,) = await self.streams.run(
            "begin", [self.streams.keys.marker(task.task_id)],
            [60_000, task.digest, task.attempt + delivery.times - 1],
        )  # fmt: skip
        return answer.decode()

    async def finish(
        self, *deliveries: Delivery, outcome: Outcome | None = None, slow_by: timedelta = LEASE * 0
    ) -> str:
        """End these in one group; the answer to the last one."""
        for delivery in deliveries:
            task = task_of(delivery)
            self.completion.add(
                Ending(
                    delivery=delivery, outcome=outcome or Completed(b"{}"),
                    task=task, task_id=task.task_id, attempt=task.attempt + delivery.times - 1,
                    finished_at=datetime.now(UTC) - slow_by,
                )
            )  # fmt: skip
        self.completion.stop()
        await self.completion.run()
        return self.answers[-1]


def task_of(delivery: Delivery) -> Task:
    return decode_task(decode(delivery.fields, stream=delivery.stream, entry_id=delivery.entry_id))


async def ends(streams: Streams) -> list[TaskEvent]:
    found = await streams.commands.xrange(streams.keys.results)
    return [decode_event(decode(f, stream="r", entry_id=i.decode())) for i, f in found]


@pytest.fixture
async def two(streams):
    return await Member(streams, "a").watch(), await Member(streams, "b").watch()


@pytest.fixture
async def task(streams) -> Task:
    task = Task(task_id=new_id(), agent="noop", input={"n": 1})
    await Publisher(streams, producer="t").publish(task)
    return task


async def test_who_lost_the_entry_says_nothing_and_acknowledges_nothing(streams, two, task):
    """P2: B has claimed A's entry: A's end is stale, the entry stays B's, B's end counts."""
    a, b = two
    first = await a.take()
    await a.begin(first)
    second = await b.take()
    await b.begin(second)

    assert second.times == 2
    assert await a.finish(first) == "stale"
    assert await ends(streams) == []
    pending = await streams.commands.xpending_range(streams.keys.tasks, ORCHESTRATOR, "-", "+", 10)
    assert [each["consumer"] for each in pending] == [b"b"]
    assert await b.finish(second) == "ok"
    assert [each.attempt for each in await ends(streams)] == [2]


async def test_a_retry_is_due_by_the_servers_clock(streams, two, task):
    """A worker whose own clock is an hour slow or fast delays no retry."""
    a, _ = two
    delivery = await a.take()
    retrying = Retrying(Fault(type="E", message="m"), timedelta(seconds=30))

    assert await a.finish(delivery, outcome=retrying, slow_by=timedelta(hours=1)) == "ok"

    due = await streams.commands.zscore(streams.keys.delayed, task.task_id) / 1000
    seconds, _ = await streams.commands.time()
    assert 20 < due - seconds <= 31


async def test_the_consumers_name_is_no_fence(streams, two, task):
    """A loses the entry and gets it back: A's first run is stale, its second counts."""
    a, b = two
    first = await a.take()
    await b.take()
    third = await a.take()

    assert third.times == 3
    assert await a.finish(first) == "stale"
    assert await a.finish(third) == "ok"


async def test_two_entries_of_one_task_have_one_end(streams, two, task):
    """Two entries are two legitimate owners; the marker lets the first end it, the other acks."""
    a, b = two
    await Publisher(streams, producer="again").publish(task)
    first, second = await a.take(), await b.take()
    assert first.entry_id != second.entry_id
    assert (await a.begin(first), await b.begin(second)) == ("run", "run")

    assert await a.finish(first) == "ok"
    assert await b.finish(second) == "ended"
    assert len(await ends(streams)) == 1
    assert (await streams.commands.xpending(streams.keys.tasks, ORCHESTRATOR))["pending"] == 0


async def test_two_entries_of_one_task_that_end_together_have_one_end(streams, two, task):
    """One worker has both in hand, and tells of both in one call."""
    a, _ = two
    await Publisher(streams, producer="again").publish(task)
    first, second = await a.take(), await a.take()
    assert (await a.begin(first), await a.begin(second)) == ("run", "run")

    await a.finish(first, second)

    assert a.answers == ["ok", "ended"]
    assert len(await ends(streams)) == 1
    assert (await streams.commands.xpending(streams.keys.tasks, ORCHESTRATOR))["pending"] == 0


async def test_an_ended_task_does_not_begin_again(streams, two, task):
    """A late copy of the message is not run."""
    a, b = two
    first = await a.take()
    await a.begin(first)
    await a.finish(first)
    await Publisher(streams, producer="late").publish(task)

    assert await b.begin(await b.take()) == "ended:succeeded"


async def test_a_cancel_is_first_or_last(streams, two, task):
    """Cancel and completion have one arbiter: whoever is second hears what stands."""
    a, _ = two
    first = await a.take()
    await a.begin(first)
    arbiter = Arbiter(streams, ttl=timedelta(minutes=1))
    event = TaskEvent(
        task_id=task.task_id, agent="noop", event=EventKind.CANCELLED, at=datetime.now(UTC)
    )

    assert await arbiter.end(event, producer="t") is TaskState.CANCELLED
    assert await a.finish(first) == "ended"
    assert await arbiter.end(event, producer="t") is TaskState.CANCELLED
    assert [each.event for each in await ends(streams)] == [EventKind.CANCELLED]


async def test_nothing_is_deleted_before_every_group_has_acknowledged(streams, two, task):
    """P3: ended by the worker, not read by the recorder: the entry stays until it has been."""
    a, _ = two
    delivery = await a.take()
    assert await a.finish(delivery) == "ok"
    assert await streams.commands.xlen(streams.keys.tasks) == 1

    recorder = Consumer(
        streams, group=RECORDER, name="r", lease=LEASE, publisher=a.consumer.publisher
    )
    await recorder.watch({streams.keys.tasks: TASKS})
    read = await recorder.read(10)
    assert await streams.commands.xlen(streams.keys.tasks) == 1
    await recorder.acknowledge(read)
    assert await streams.commands.xlen(streams.keys.tasks) == 0


async def test_a_missing_group_keeps_everything(streams, two, task):
    """P3: a required group that does not exist has read nothing."""
    a, _ = two
    delivery = await a.take()
    await streams.commands.xgroup_destroy(streams.keys.tasks, RECORDER)
    await a.finish(delivery)
    assert await streams.commands.xlen(streams.keys.tasks) == 1


async def test_a_trimmed_entry_still_ends_its_task(streams, two, task):
    """A foreign XTRIM took the body: whoever was at work ends the task all the same."""
    a, _ = two
    delivery = await a.take()
    await a.begin(delivery)
    await streams.commands.xtrim(streams.keys.tasks, maxlen=0, approximate=False)

    assert await a.finish(delivery) == "ok"
    assert len(await ends(streams)) == 1


async def test_handed_back_is_not_a_start(streams, two, task):
    """SIGTERM: the next worker gets it at once, as the same delivery."""
    a, b = two
    delivery = await a.take()
    entry = Entry(streams.keys.tasks, delivery.entry_id, delivery.times)
    assert await hand_back(streams, [entry], group=ORCHESTRATOR, consumer="a") == 1

    again = await b.take()
    assert again.times == 1
    assert await a.finish(delivery) == "stale"


async def test_a_retry_waits_and_comes_back_as_the_next_attempt(streams, two, task):
    """Event, delayed set and acknowledgement in one step; due by Redis' clock."""
    a, b = two
    delivery = await a.take()
    await a.begin(delivery)
    retrying = Retrying(Fault(type="E", message="m"), timedelta(milliseconds=30))
    assert await a.finish(delivery, outcome=retrying) == "ok"
    assert await streams.commands.zcard(streams.keys.delayed) == 1

    moved = 0
    while not moved:
        moved, _ = await streams.run(
            "promote", [streams.keys.delayed, streams.keys.delayed_bodies], [100, "now"]
        )
    following = await b.take()
    assert task_of(following).attempt == 2
    assert await b.begin(following) == "run"
    assert await b.finish(following) == "ok"
    assert [each.event for each in await ends(streams)] == [EventKind.RETRYING, EventKind.SUCCEEDED]


async def test_renewal_keeps_what_is_owned_and_names_what_is_lost(streams, two, task):
    """The lease: idle goes to zero, the delivery counter stays, an ended task is named."""
    a, _ = two
    delivery = await a.take()
    marker = streams.keys.marker(task.task_id)
    await a.begin(delivery)

    async def renew(name: str) -> list[bytes]:
        return await streams.run(
            "renew", [streams.keys.tasks, marker],
            [ORCHESTRATOR, name, 60_000, delivery.entry_id, "1::"],
        )  # fmt: skip

    assert await renew("a") == []
    (pending,) = await streams.commands.xpending_range(
        streams.keys.tasks, ORCHESTRATOR, "-", "+", 10
    )
    assert (pending["times_delivered"], pending["consumer"]) == (1, b"a")
    assert await renew("b") == [delivery.entry_id.encode()]
    event = TaskEvent(
        task_id=task.task_id, agent="noop", event=EventKind.CANCELLED, at=datetime.now(UTC)
    )
    await Arbiter(streams, ttl=timedelta(minutes=1)).end(event, producer="t")
    assert await renew("a") == [delivery.entry_id.encode()]
