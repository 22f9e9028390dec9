"""Faults that an attack on the core once found; each was seen to break before it was mended."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import ClassVar

import pytest
from pydantic import BaseModel, field_validator

from orchestrator import Agent, Retry, RetryLater, RunContext
from orchestrator.client import set_submitter
from orchestrator.outcome import Fault, Retrying, Superseded
from orchestrator.task import Durability, TaskState
from orchestrator.testing import run_agent
from tests.integration.test_owner import Member, ends, task, two  # noqa: F401 - fixtures
from tests.integration.test_recording import execute, parts, reconciler, record_all  # noqa: F401
from tests.integration.test_spine import Shout, Text, rows, running
from tests.support import wait_until


class Choice(BaseModel):
    text: str = ""

    @field_validator("text")
    @classmethod
    def known(cls, value: str) -> str:
        return {"": "", "x": "x"}[value]  # KeyError, which pydantic lets through


class Surrogate(Agent[Text, Text]):
    retry = Retry(max_attempts=1)

    async def run(self, task_input: Text, ctx: RunContext) -> Text:
        raise ValueError("a file named \udcff")


class NoDate(Agent[Text, Text]):
    async def run(self, task_input: Text, ctx: RunContext) -> Text:
        raise RetryLater(after=timedelta.max)


class InnerCancelled(Agent[Text, Text]):
    retry = Retry(max_attempts=1)

    async def run(self, task_input: Text, ctx: RunContext) -> Text:
        inner = asyncio.ensure_future(asyncio.sleep(60))
        inner.cancel()
        await inner
        return task_input


class Keyed(Agent[Choice, Text]):
    retry = Retry(max_attempts=1)

    async def run(self, task_input: Choice, ctx: RunContext) -> Text:
        return Text(text=task_input.text)


class Huge(Agent[Text, Text]):
    retry = Retry(max_attempts=1)

    async def run(self, task_input: Text, ctx: RunContext) -> Text:
        return Text(text="x" * 9_000_000)


class Waits(Agent[Text, Text]):
    """Returns when the test says so."""

    begun: ClassVar[asyncio.Event]
    go_on: ClassVar[asyncio.Event]

    async def run(self, task_input: Text, ctx: RunContext) -> Text:
        self.begun.set()
        await self.go_on.wait()
        return task_input


@pytest.mark.parametrize("agent", [Surrogate, NoDate, InnerCancelled, Keyed, Huge])
async def test_no_agent_makes_its_worker_deaf(settings, database, agent):
    """Whatever its code raises, its task comes to something and its neighbour is run."""
    async with running(settings, agent, Shout) as live:
        set_submitter(live.submitter)
        await live.streams.commands.xadd(
            live.streams.keys.tasks,
            {"data": f'{{"agent":"{agent.name}","input":{{"text":"evil"}}}}'},
        )
        neighbour = await Shout.delay(Text(text="hello"))
        assert (await neighbour.get(timeout=10)).text == "HELLO"
        (row,) = await wait_until(
            lambda: rows(
                database,
                "SELECT state FROM tasks WHERE agent = :agent"
                " AND state NOT IN ('queued', 'running')",
                agent=agent.name,
            ),
            what="it came to something",
        )
    set_submitter(None)
    assert row["state"] == ("retrying" if agent is NoDate else "failed")


async def test_a_result_over_the_limit_says_so():
    """The error names the setting; nothing of that size is put on the stream."""
    outcome = (await run_agent(Huge(), Text(text="x"))).outcome
    assert "AURORA_MAX_OUTPUT" in outcome.fault.message


async def test_what_nobody_ended_is_not_acknowledged(streams, two, task):  # noqa: F811
    """P4: a run that is only given up leaves its entry to the next owner."""
    a, _ = two
    delivery = await a.take()
    await a.begin(delivery)

    assert await a.finish(delivery, outcome=Superseded("lost")) == "stale"
    pending = await streams.commands.xpending(streams.keys.tasks, "orchestrator")
    assert pending["pending"] == 1


async def test_our_own_sweep_does_not_take_what_we_have_in_hand(streams, two, task):  # noqa: F811
    """A stall longer than the lease: the run under way keeps its fence and is no crash."""
    a, _ = two
    delivery = await a.take()

    async def pending():
        (entry,) = await streams.commands.xpending_range(
            streams.keys.tasks, "orchestrator", "-", "+", 10
        )
        return entry

    async def past_the_lease():
        return (await pending())["time_since_delivered"] > 60

    await wait_until(past_the_lease, what="the lease has run out")
    a.consumer._next_claim = 0.0
    assert await a.consumer._claim(10, [delivery.entry_id]) == []
    assert (await pending())["times_delivered"] == 1
    assert not await past_the_lease()
    assert await a.finish(delivery) == "ok"


async def test_a_retry_that_is_told_twice_is_one_retry(streams, two, task):  # noqa: F811
    """The answer of finish.lua was lost after it ran: told again, it is stale."""
    a, _ = two
    delivery = await a.take()
    await a.begin(delivery)
    retrying = Retrying(Fault(type="E", message="m"), timedelta(0))
    assert await a.finish(delivery, outcome=retrying) == "ok"
    keys = streams.keys
    await streams.run("promote", [keys.delayed, keys.delayed_bodies], [100, "now"])
    await streams.commands.xdel(keys.tasks, delivery.entry_id)

    again = Member(streams, "a")
    await again.watch()
    assert await again.finish(delivery, outcome=retrying) == "stale"
    assert len(await ends(streams)) == 1
    assert await streams.commands.zcard(keys.delayed) == 0


async def test_a_trimmed_tail_does_not_stop_the_reconciler(parts):  # noqa: F811
    """Somebody removed an entry that the recorder had not read: the row is published again."""
    receipt = await parts.submitter.submit(Shout.task(Text(text="x")))
    await parts.streams.commands.xdel(parts.streams.keys.tasks, receipt.entry_id)
    sweeper = reconciler(parts)
    for _ in range(3):
        await sweeper.sweep()
    assert await parts.streams.commands.xlen(parts.streams.keys.tasks) == 1


async def test_begun_in_time_is_in_time(parts):  # noqa: F811
    """A task that a worker has in hand does not expire, though the record still says queued."""
    task = Shout.task(Text(text="x"), expires_at=datetime.now(UTC) - timedelta(seconds=1))  # noqa: F811
    await parts.submitter.submit(task)
    await record_all(parts)
    key = parts.streams.keys.tasks
    await parts.streams.commands.xreadgroup("orchestrator", "w", {key: ">"})
    await reconciler(parts).sweep()
    assert await parts.streams.commands.xlen(parts.streams.keys.results) == 0


async def test_two_recorders_that_saw_one_half_each_keep_both(parts, database):  # noqa: F811
    """The row came into being since we looked: nothing goes back, nothing that is known is lost."""
    from orchestrator.db.recording import write
    from orchestrator.fold import fold
    from tests.unit.test_record import HISTORY, TASK

    halves = [HISTORY[:1], HISTORY[1:2], HISTORY[-1:]]
    for order in (halves, halves[::-1]):
        for half in order:
            async with database.transaction() as connection:
                await write(connection, fold({}, half))  # neither knows of the other
        (row,) = await rows(database, "SELECT * FROM tasks")
        assert (row["state"], row["digest"]) == ("succeeded", TASK.digest)
        assert row["input"] == TASK.input
        assert row["entry_id"] == "1-0"
        await execute(database, "DELETE FROM tasks")


async def test_two_recorders_at_one_time_tell_of_one_beginning(database, monkeypatch):
    """The other one made the row between our look and our insert: looked at again, then noted."""
    from orchestrator.db import recording
    from orchestrator.record import Writes
    from tests.unit.test_record import HISTORY

    look, others = recording.lock_known, [HISTORY[:1]]

    async def look_then_be_overtaken(connection, task_ids):
        found = await look(connection, task_ids)
        if others:
            await recording.record(database, others.pop(), also=Writes())
        return found

    monkeypatch.setattr(recording, "lock_known", look_then_be_overtaken)
    await recording.record(database, HISTORY[1:], also=Writes())

    audit = await rows(
        database, "SELECT before, after FROM audit_events WHERE object_type = 'task'"
    )
    assert [each["before"] for each in audit].count(None) == 1
    (row,) = await rows(database, "SELECT state FROM tasks")
    assert row["state"] == "succeeded"


@pytest.mark.parametrize(
    "data",
    [
        b'{"task_id":"0198a5f2-0000-7000-8000-00000000000A","agent":"%s","event":"succeeded"}'
        % (b"x" * 12_000),
        b'{"task_id":"not-a-uuid","agent":"a","event":"succeeded"}',
    ],
)
async def test_hostile_results_do_not_hold_up_others(parts, database, data):  # noqa: F811
    """Set aside; what comes after is recorded."""
    key = parts.streams.keys.results
    await parts.streams.commands.xadd(key, {"data": data})
    await parts.submitter.submit(Shout.task(Text(text="x")))
    await record_all(parts)
    assert len(await rows(database, "SELECT * FROM dead_letters")) == 1
    assert len(await rows(database, "SELECT * FROM tasks")) == 1


async def test_acknowledging_what_redis_has_lost_is_no_error(parts):  # noqa: F811
    """FLUSHALL between the commit and the acknowledgement."""
    await parts.submitter.submit(Shout.task(Text(text="x")))
    consumer = parts.consumer("recorder")
    from orchestrator.streams.names import TASKS

    await consumer.watch({parts.streams.keys.tasks: TASKS})
    read = await consumer.read(10)
    await parts.streams.commands.delete(parts.streams.keys.tasks)
    await consumer.acknowledge(read)


async def test_a_bare_xadd_to_another_queue_is_recorded(settings, database):
    """A worker says which queues it reads, so the recorder reads them too."""

    class Special(Shout):
        name = "special"
        queue = "special"

    async with running(settings, Special) as live:
        lane = f"{live.streams.keys.tasks}:special"
        await live.streams.commands.xadd(lane, {"data": '{"agent":"special","input":{"text":"x"}}'})
        (row,) = await wait_until(
            lambda: rows(database, "SELECT * FROM tasks WHERE state='succeeded' AND digest <> ''"),
            what="recorded with what it asked for",
        )
        assert row["input"] == {"text": "x"}

        async def gone() -> bool:
            return await live.streams.commands.xlen(lane) == 0

        await wait_until(gone, what="nothing left on the lane")


async def test_a_task_that_only_the_stream_accepted_can_be_asked_for_and_cancelled(parts):  # noqa: F811
    """Durability stream, and the recorder behind: queued, and cancelled on request."""
    receipt = await parts.submitter.submit(Shout.task(Text(text="x")), durability=Durability.STREAM)
    assert await parts.submitter.state(receipt.task_id) is TaskState.QUEUED
    assert await parts.submitter.cancel(receipt.task_id, actor="me") is TaskState.CANCELLED


@pytest.mark.parametrize(
    "other",
    [
        {"agent": "nobody"},
        {"agent": "waits", "input": {"text": "x" * 300_000}},
        {"agent": "waits", "input": {"text": "b"}, "expires_at": "2020-01-01T00:00:00Z"},
    ],
    ids=["unknown agent", "too large", "expired"],
)
async def test_what_may_not_begin_does_not_end_the_task_whose_id_it_took(settings, database, other):
    """It is set aside, and the task that is under way succeeds."""
    Waits.begun, Waits.go_on = asyncio.Event(), asyncio.Event()
    async with running(settings, Waits) as live:
        set_submitter(live.submitter)
        handle = await Waits.delay(Text(text="a"))
        await asyncio.wait_for(Waits.begun.wait(), 10)
        data = json.dumps(other | {"task_id": handle.task_id})
        await live.streams.commands.xadd(live.streams.keys.tasks, {"data": data})
        (letter,) = await wait_until(
            lambda: rows(database, "SELECT reason FROM dead_letters"), what="set aside"
        )

        Waits.go_on.set()

        assert (await handle.get(timeout=10, recorded=True)).text == "a"
        assert letter["reason"] == "task_id_conflict"
