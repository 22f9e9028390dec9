"""The recorder and the reconciler on real servers: commit first, then what follows."""

import asyncio
import json
import math
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event, text

from orchestrator import Retry, RunContext
from orchestrator.app import recorder, worker
from orchestrator.client import set_submitter
from orchestrator.db import accepting
from orchestrator.db.reconciling import OpenTasks
from orchestrator.errors import Overloaded, TaskIdConflict
from orchestrator.parts import Parts
from orchestrator.registry import AgentRegistry
from orchestrator.services import portions
from orchestrator.services.auditor import Auditor
from orchestrator.services.decoding import PAST_OUTPUT
from orchestrator.services.janitor import Janitor
from orchestrator.services.reconciler import Reconciler
from orchestrator.services.recorder import Recorder
from orchestrator.streams.message import KEPT
from orchestrator.streams.names import AUDIT, AUDITOR, RECORDER, RESULTS, TASKS, Stream
from orchestrator.task import Durability, Task, TaskState, new_id
from tests.integration.test_spine import Shout, Text, rows, running
from tests.support import wait_until

MAX_OUTPUT = 1024 * 1024  # bytes


@pytest.fixture
async def parts(settings, streams):
    found = Parts(settings, role="test", registry=AgentRegistry([Shout]))
    await found.streams.ensure_all_groups()
    yield found
    await found.close()


def reconciler(parts: Parts) -> Reconciler:
    return Reconciler(
        OpenTasks(parts.database), parts.publisher, parts.arbiter, parts.room, grace=timedelta(0),
        renewed=timedelta(hours=1), max_payload=parts.settings.max_payload,
    )  # fmt: skip


def _recorder(parts: Parts) -> Recorder:
    return Recorder(
        parts.consumer(RECORDER), parts.database, max_payload=2**18, max_output=MAX_OUTPUT
    )


async def record_all(parts: Parts) -> None:
    """One pass of the recorder over all that waits."""
    found = _recorder(parts)
    await found._watch_all()
    while batch := await found.consumer.read(1000, block=0.001):
        await found._keep(found._decoder.items(batch))
        await found._under_way.settled()


async def execute(database, sql: str) -> None:
    async with database.transaction() as connection:
        await connection.execute(text(sql))


async def length(parts: Parts) -> int:
    return await parts.streams.commands.xlen(parts.streams.keys.tasks)


async def test_a_row_without_a_message_is_published(parts):
    """P1: accepted, and the process died before XADD: the reconciler publishes."""
    task = Shout.task(Text(text="x"))
    await parts.store.accept([task], actor="test")
    sweeper = reconciler(parts)

    await sweeper.sweep()
    assert await length(parts) == 0  # one look is no proof
    await sweeper.sweep()

    assert await length(parts) == 1


async def test_a_lost_message_is_published_again_and_a_slow_recorder_is_waited_for(parts):
    """Gone, not delayed, and the recorder past it all: only then; a slow recorder costs nothing."""
    task = Shout.task(Text(text="x"))
    await parts.submitter.submit(task)
    await record_all(parts)
    # Taken and ended by a worker; the recorder has not read the end yet.
    key = parts.streams.keys.tasks
    ((entry_id, _),) = await parts.streams.commands.xrange(key)
    await parts.streams.commands.xdel(key, entry_id)
    await parts.publisher.publish_data(
        RESULTS, b'{"task_id":"%s","agent":"shout","event":"succeeded","output":{"text":"X"}}'
        % task.task_id.encode(),
    )  # fmt: skip
    sweeper = reconciler(parts)
    for _ in range(4):
        await sweeper.sweep()
    assert await length(parts) == 0, "a slow recorder must not cause a second execution"

    await record_all(parts)
    for _ in range(3):
        await sweeper.sweep()
    assert await length(parts) == 0
    (row,) = await rows(parts.database, "SELECT state FROM tasks")
    assert row["state"] == "succeeded"


async def test_a_message_that_came_back_meanwhile_is_not_published_beside(parts):
    """Redis lost its last writes: the newest message is gone, an older one leads to a retry."""
    task = Shout.task(Text(text="x"))
    receipt = await parts.submitter.submit(task)
    await record_all(parts)
    commands, keys = parts.streams.commands, parts.streams.keys
    await commands.xdel(keys.tasks, receipt.entry_id)
    sweeper = reconciler(parts)
    await sweeper.sweep()

    await commands.zadd(keys.delayed, {task.task_id: 2**50})
    await sweeper.sweep()
    assert await length(parts) == 0

    await commands.zrem(keys.delayed, task.task_id)
    for _ in range(2):
        await sweeper.sweep()
    assert await length(parts) == 1


async def test_everything_lost_is_published_again(parts):
    """FLUSHALL: queued, running, retrying and scheduled tasks each come back as they stood."""
    tasks = [Shout.task(Text(text=str(n))) for n in range(3)]
    later = Shout.task(Text(text="later"), run_at=datetime.now(UTC) + timedelta(hours=1))
    await parts.submitter.submit_many([*tasks, later])
    await parts.publisher.publish_data(
        RESULTS,
        b'{"task_id":"%s","agent":"shout","event":"started"}' % tasks[1].task_id.encode(),
    )
    await record_all(parts)
    prefix = parts.streams.keys.prefix
    async for key in parts.streams.commands.scan_iter(match=f"{prefix}:*"):
        await parts.streams.commands.delete(key)
    await parts.streams.ensure_all_groups()

    sweeper = reconciler(parts)
    await sweeper.sweep()
    await sweeper.sweep()

    entries = await parts.streams.commands.xrange(parts.streams.keys.tasks)
    found = {(d := json.loads(f[b"data"]))["task_id"]: d for _, f in entries}
    assert set(found) == {each.task_id for each in (*tasks, later)}
    assert found[tasks[1].task_id]["attempt"] == 2
    assert found[tasks[1].task_id]["crashes"] == 1
    assert "run_at" in found[later.task_id]


async def test_nothing_is_acknowledged_before_it_is_committed(parts, database):
    """P4: Postgres refuses; the message stays pending, and is recorded once Postgres takes it."""
    await parts.submitter.submit(Shout.task(Text(text="x")), durability=Durability.STREAM)
    await execute(database, "ALTER TABLE tasks RENAME TO elsewhere")
    found = _recorder(parts)
    await found._watch_all()
    (delivery,) = await found.consumer.read(10)
    await found._keep(found._decoder.items([delivery]))
    settling = asyncio.create_task(found._under_way.settled())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(settling), 0.5)

    pending = await parts.streams.commands.xpending(parts.streams.keys.tasks, RECORDER)
    assert pending["pending"] == 1
    assert await rows(database, "SELECT * FROM dead_letters") == []
    await execute(database, "ALTER TABLE elsewhere RENAME TO tasks")
    await settling
    assert len(await rows(database, "SELECT * FROM tasks")) == 1
    pending = await parts.streams.commands.xpending(parts.streams.keys.tasks, RECORDER)
    assert pending["pending"] == 0


async def test_a_portion_that_waits_holds_up_neither_the_next_one_nor_itself(parts, database):
    """One row is locked by somebody: others are recorded, and what is in hand is not read again."""
    locked, other = (Shout.task(Text(text=each)) for each in "xy")
    await parts.submitter.submit(locked)
    found = _recorder(parts)
    await found._watch_all()
    (first,) = await found._next()

    async with database.transaction() as connection:
        await connection.execute(text("SELECT 1 FROM tasks FOR UPDATE"))
        await found._keep([first])
        await parts.submitter.submit(other, durability=Durability.STREAM)
        await asyncio.wait_for(found._keep(await found._next()), 5.0)
        await wait_until(
            lambda: rows(database, "SELECT 1 FROM tasks OFFSET 1"), what="the other one recorded"
        )
        found.consumer.suspect_lost_reply()  # as where Redis was away for a moment
        assert await found._next() == []
    await found._under_way.settled()

    assert await length(parts) == 2  # no worker has seen them
    pending = await parts.streams.commands.xpending(parts.streams.keys.tasks, RECORDER)
    assert pending["pending"] == 0


async def test_one_bad_row_does_not_hold_up_its_batch(parts, database):
    """What Postgres refuses is set aside with its words; the rest of the batch is recorded."""
    good = [Shout.task(Text(text=str(n))) for n in range(5)]
    await parts.submitter.submit_many(good, durability=Durability.STREAM)
    await parts.publisher.publish_data(
        RESULTS, b'{"task_id":"no-uuid","agent":"shout","event":"succeeded"}'
    )
    bad = Task(task_id=new_id(), agent="shout", input={"text": "x"}, attempt=999_999)
    await parts.publisher.publish(bad)
    await execute(database, "ALTER TABLE tasks ADD CHECK (attempt < 1000)")

    await record_all(parts)

    assert len(await rows(database, "SELECT * FROM tasks")) == 5
    letters = await rows(database, "SELECT reason FROM dead_letters ORDER BY reason")
    assert [each["reason"] for each in letters] == ["malformed", "unrecordable"]


async def test_large_results_that_wait_are_recorded_in_portions(parts, database, monkeypatch):
    """P8: 300 of 4 MB were one text of 1.2 GB, more than Postgres takes, for ever. Here: of KBs."""
    monkeypatch.setattr(portions, "PORTION_BYTES", 100_000)
    event = '{"task_id":"%s","agent":"shout","event":"succeeded","output":"%s"}'
    for _ in range(100):
        data = event % (new_id(), "x" * 10_000)
        await parts.streams.commands.xadd(parts.streams.keys.results, {"data": data})

    await record_all(parts)

    written = await rows(database, "SELECT count(*) FROM results GROUP BY xmin::text")
    assert sum(each["count"] for each in written) == 100
    assert max(each["count"] for each in written) < 10
    pending = await parts.streams.commands.xpending(parts.streams.keys.results, RECORDER)
    assert pending["pending"] == 0


class Second(Shout):
    """Succeeds at its second attempt."""

    name = "second"
    retry = Retry(max_attempts=2, base=timedelta(milliseconds=10))

    async def run(self, task_input: Text, ctx: RunContext) -> Text:
        if ctx.attempt == 1:
            raise ValueError("not yet")
        return task_input


async def test_two_recorders_that_write_in_portions_tell_of_one_beginning_and_one_end(
    settings, database, streams, monkeypatch
):
    """Halves of a task's messages, its retry and its end meet in different ones, in any order."""
    monkeypatch.setattr(portions, "PORTION_BYTES", 2_000)
    write, wrote = Recorder._write, set()

    async def noted(self, batch):
        wrote.add(self.consumer.name)
        await write(self, batch)

    monkeypatch.setattr(Recorder, "_write", noted)
    tasks = [Second.task(Text(text=str(n))) for n in range(100)]
    async with (
        running(settings, Second, roles=(worker, recorder)) as parts,
        running(settings, Second, roles=(recorder,)) as other,
    ):
        await parts.submitter.submit_many(tasks, durability=Durability.STREAM)
        # Once more, as by a caller who got no answer.
        await other.submitter.submit_many(tasks, durability=Durability.STREAM)
        done = "SELECT 1 FROM tasks WHERE state = 'succeeded' OFFSET 99"
        await wait_until(lambda: rows(database, done), what="100 recorded", timeout=60)
        for stream in (TASKS, RESULTS):
            await wait_until(lambda each=stream: _all_read(parts, each), what="acknowledged")

    assert len(wrote) == 2
    # What the record sees first, and what only after the end, is the order of the recorders. But a
    # task begins once and ends once, in the audit as in the tables.
    told = "SELECT object_id FROM audit_events WHERE object_type = 'task'"
    begun = await rows(database, f"{told} AND before IS NULL AND after IS NOT NULL")
    ended = await rows(database, f"{told} AND action = 'task.succeeded'")
    for found in (begun, ended):
        assert sorted(each["object_id"] for each in found) == sorted(each.task_id for each in tasks)
    assert len(await rows(database, "SELECT 1 FROM results WHERE attempt = 2")) == 100
    assert await rows(database, "SELECT * FROM dead_letters") == []


async def _all_read(parts: Parts, stream: Stream) -> bool:
    return await parts.streams.lag(stream, RECORDER) == 0


async def test_what_no_worker_of_ours_can_have_said_is_too_large(parts, database):
    """A result may be large, but not without bound; nor may an act. A bounded part is kept."""
    xadd = parts.streams.commands.xadd
    keys = parts.streams.keys
    too_large = "x" * (PAST_OUTPUT * MAX_OUTPUT)
    event = {"task_id": new_id(), "agent": "shout", "event": "succeeded"}
    await xadd(keys.results, {"data": json.dumps(event | {"output": too_large[:MAX_OUTPUT]})})
    await xadd(keys.results, {"data": json.dumps(event | {"output": too_large})})
    await xadd(keys.audit, {"data": json.dumps({"action": too_large})})

    await record_all(parts)
    acts = Auditor(parts.consumer(AUDITOR), database, max_payload=2**18)
    await acts.consumer.watch({keys.audit: AUDIT})
    await acts._keep(await acts.consumer.read(10))

    (result,) = await rows(database, "SELECT state FROM results")
    letters = await rows(database, "SELECT stream, reason, fields FROM dead_letters")
    assert result["state"] == "succeeded"
    assert {(each["stream"], each["reason"]) for each in letters} == {
        (keys.results, "too_large"), (keys.audit, "too_large"),
    }  # fmt: skip
    assert all(len(each["fields"]["data"]) <= KEPT for each in letters)
    said = "SELECT object_id FROM audit_events WHERE action = 'message.dead_lettered'"
    assert len(await rows(database, said)) == len(letters)


async def test_another_act_under_a_number_that_is_taken_is_set_aside(parts, database):
    """A producer that counts from 1 again at each start: nothing of what it says is dropped."""
    keys = parts.streams.keys
    act = {"actor": "x", "object_type": "door", "object_id": "1", "producer": "p", "sequence": 1}
    said = [json.dumps(act | {"action": action}) for action in ("opened", "closed")]
    for data in said:
        await parts.streams.commands.xadd(keys.audit, {"data": data})

    acts = Auditor(parts.consumer(AUDITOR), database, max_payload=2**18)
    await acts.consumer.watch({keys.audit: AUDIT})
    await acts._keep(await acts.consumer.read(10))

    (entry,) = await rows(database, "SELECT action FROM audit_events WHERE producer = 'p'")
    (letter,) = await rows(database, "SELECT reason, fields FROM dead_letters")
    assert entry["action"] == "opened"
    assert (letter["reason"], letter["fields"]["data"]) == ("unrecordable", said[1])


async def test_a_task_of_a_made_up_future_is_ended_too(parts):
    """An event of a task that nobody knows, said to be of the year 9000: nothing stays open."""
    await parts.publisher.publish_data(
        RESULTS, b'{"task_id":"%s","agent":"shout","event":"started","at":"9000-01-01T00:00:00Z"}'
        % new_id().encode(),
    )  # fmt: skip
    await record_all(parts)
    sweeper = reconciler(parts)

    await sweeper.sweep()
    await sweeper.sweep()
    await record_all(parts)

    (row,) = await rows(parts.database, "SELECT state FROM tasks")
    assert row["state"] == "dead"


async def test_nul_and_hostile_text_are_recorded(parts, database):
    """An alert with NUL in it is triaged like any other; Postgres gets U+FFFD for it."""
    async with running(parts.settings, Shout) as live:
        set_submitter(live.submitter)
        handle = await Shout.delay(Text(text="a\0b\x1f\u202e<script>"))
        assert "\0" in (await handle.get(timeout=10)).text
        await handle.get(timeout=10, recorded=True)
    (row,) = await rows(database, "SELECT output->>'text' AS text FROM results")
    assert row["text"].startswith("A\ufffdB")


async def test_the_same_task_twice_is_one_and_another_content_is_refused(parts):
    """Same id and content: accepted once. Same id, other content: TaskIdConflict."""
    task = Shout.task(Text(text="x"), idempotency_key="k")
    first = await parts.submitter.submit(task)
    again = await parts.submitter.submit(Shout.task(Text(text="x"), idempotency_key="k"))

    assert (first.created, again.created) == (True, False)
    assert first.task_id == again.task_id
    assert await length(parts) == 1
    with pytest.raises(TaskIdConflict, match="another agent or input"):
        await parts.submitter.submit(Shout.task(Text(text="y"), idempotency_key="k"))


async def test_many_are_accepted_in_statements_and_all_or_none(parts, database, monkeypatch):
    """A `map` over gigabytes was one value of that size a column: Postgres hung up on it."""
    longest = 0

    def look(_connection, _cursor, _statement, given, *_):
        nonlocal longest
        longest = max([longest, *(len(each) for each in given if isinstance(each, str))])

    monkeypatch.setattr(accepting, "STATEMENT", 2)
    event.listen(parts.database.engine.sync_engine, "before_cursor_execute", look)
    tasks = [Shout.task(Text(text="x" * 10_000)) for _ in range(5)]
    assert all((await parts.store.accept(tasks, actor="test")).values())
    assert 20_000 < longest < 30_000

    more = [Shout.task(Text(text=str(n))) for n in range(5)]
    conflict = tasks[0].model_copy(update={"input": {"text": "y"}})
    with pytest.raises(TaskIdConflict):
        await parts.store.accept([*more, conflict], actor="test")
    assert len(await rows(database, "SELECT id FROM tasks")) == len(tasks)


async def test_a_session_publishes_if_and_only_if_it_commits(parts):
    """`delay(session=...)` joins the caller's own transaction."""
    set_submitter(parts.submitter)
    async with parts.database.sessions() as session:
        await Shout.apply_async(Text(text="no"), session=session)
        await session.rollback()
        async with session.begin_nested() as savepoint:
            await Shout.apply_async(Text(text="nor this"), session=session)
            await savepoint.rollback()
        handle = await Shout.apply_async(Text(text="yes"), session=session)
        assert await length(parts) == 0
        await session.commit()
    set_submitter(None)

    assert await wait_until(lambda: length(parts), what="published after the commit") == 1
    found = await rows(parts.database, "SELECT id::text FROM tasks")
    assert [each["id"] for each in found] == [handle.task_id]


async def test_cancel_without_workers(parts):
    """A queued task is cancelled though no worker runs; it is never started afterwards."""
    receipt = await parts.submitter.submit(Shout.task(Text(text="x")))
    assert await parts.submitter.cancel(receipt.task_id, actor="me") is TaskState.CANCELLED
    await record_all(parts)

    (row,) = await rows(parts.database, "SELECT state, error FROM results")
    assert row["state"] == "cancelled"
    assert "me" in row["error"]["message"]
    async with running(parts.settings, Shout, roles=(worker, recorder)) as live:
        await wait_until(lambda: _gone(live), what="the entry is acknowledged unseen")
    assert len(await rows(parts.database, "SELECT * FROM results")) == 1


async def _gone(parts: Parts) -> bool:
    return await length(parts) == 0


async def test_expired_before_it_began(parts):
    """Nobody runs it after its time; the reconciler says so even without a worker."""
    task = Shout.task(Text(text="x"), expires_at=datetime.now(UTC) - timedelta(seconds=1))
    await parts.submitter.submit(task)
    await reconciler(parts).sweep()
    await record_all(parts)

    (row,) = await rows(parts.database, "SELECT state FROM tasks")
    assert row["state"] == "expired"


async def test_the_past_goes_first_where_memory_is_short(parts, monkeypatch):
    """P8: workers stop reading at 75 %; what is kept for others must not keep them from it."""
    await parts.publisher.publish_data(
        RESULTS, b'{"task_id":"%s","agent":"shout","event":"succeeded"}' % new_id().encode()
    )
    await parts.publisher.publish_data(RESULTS, b"{}")
    key = parts.streams.keys.results
    group = _recorder(parts)
    await group._watch_all()
    (done,) = await group.consumer.read(1, block=0.001)
    await group.consumer.acknowledge([done])
    share = 0.5

    async def used():
        return share

    monkeypatch.setattr(parts.streams, "memory_share", used)
    janitor = Janitor(parts.publisher, lease=parts.settings.lease)
    await janitor.sweep()
    assert await parts.streams.commands.xlen(key) == 2

    share = 0.7
    await janitor.sweep()

    assert await parts.streams.commands.xlen(key) == 1  # the one that nobody has read


async def test_submission_is_refused_while_redis_is_nearly_full(parts, monkeypatch):
    """P8: a typed error that says when to come back, before completions would be refused."""

    async def nearly_full() -> float:
        return 0.9

    monkeypatch.setattr(parts.streams, "memory_share", nearly_full)
    with pytest.raises(Overloaded) as refused:
        await parts.submitter.submit(Shout.task(Text(text="x")), durability=Durability.STREAM)
    assert refused.value.retry_after > 0


@pytest.mark.parametrize("durability", Durability)
async def test_submission_is_refused_while_too_much_waits(parts, durability):
    """P8: without workers the backlog ends at its limit; what was refused is not kept."""
    submitter, room = parts.submitter, parts.room
    room.max_backlog = 3
    for n in range(3):
        await submitter.submit(Shout.task(Text(text=str(n))), durability=durability)
    with pytest.raises(Overloaded, match="AURORA_MAX_BACKLOG=3") as refused:
        await submitter.submit(Shout.task(Text(text="x")), durability=durability)
    assert refused.value.retry_after > 0
    assert await length(parts) == 3
    assert len(await rows(parts.database, "SELECT * FROM tasks")) in (0, 3)

    room._looked_at = -math.inf  # a second later
    with pytest.raises(Overloaded):
        await submitter.submit_many([Shout.task(Text(text="x"))], durability=durability)
    await parts.streams.commands.xtrim(parts.streams.keys.tasks, maxlen=0, approximate=False)
    room._looked_at = -math.inf
    await submitter.submit(Shout.task(Text(text="x")), durability=durability)
