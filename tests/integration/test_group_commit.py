"""Single submissions that share a commit: each still gets the answer that it would get alone."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from pydantic_core import PydanticSerializationError
from sqlalchemy.exc import IntegrityError

from orchestrator.client import Receipt
from orchestrator.db import session
from orchestrator.errors import TaskIdConflict, Unavailable
from orchestrator.record import accepted, state_changed
from orchestrator.task import Task
from tests.integration.test_recording import execute, length, parts  # noqa: F401 - a fixture
from tests.integration.test_spine import Shout, Text, rows
from tests.support import wait_until

COMMITS = "SELECT count(DISTINCT xmin::text) AS commits, count(*) AS tasks FROM tasks"


def shout(text: str = "x", **options) -> Task:
    return Shout.task(Text(text=text), **options)


@pytest.fixture
async def submit(parts):  # noqa: F811
    """Submits all of these at once, each in a call of its own; each one's receipt or error."""
    # Connected, and Redis' memory looked at: from here on nothing comes before a group.
    await parts.submitter.submit(shout("the first"))
    await execute(parts.database, "TRUNCATE tasks, audit_events")

    async def submit(*tasks: Task) -> list[Receipt | BaseException]:
        return await asyncio.gather(*map(parts.submitter.submit, tasks), return_exceptions=True)

    return submit


@pytest.fixture
def held(parts, monkeypatch):  # noqa: F811
    """Keeps groups from Postgres until it is set; `held.groups` has their sizes."""
    gate, commit = asyncio.Event(), parts.store.accept_new
    gate.groups = []

    async def at_gate(asked):
        gate.groups.append(len(asked))
        await gate.wait()
        return await commit(asked)

    monkeypatch.setattr(parts.store, "accept_new", at_gate)
    return gate


async def test_callers_at_one_time_share_a_commit(parts, submit):  # noqa: F811
    """One transaction for all, the audit in it; each receipt names its own entry."""
    tasks = [shout(str(n)) for n in range(100)]

    receipts = await submit(*tasks)

    assert await rows(parts.database, COMMITS) == [{"commits": 1, "tasks": 100}]
    (said,) = await rows(
        parts.database,
        "SELECT count(*) FROM tasks t JOIN audit_events a ON a.object_id = t.id::text"
        " AND a.xmin::text = t.xmin::text AND a.action = 'task.queued'",
    )
    assert said["count"] == 100
    key = parts.streams.keys.tasks
    for task, receipt in zip(tasks, receipts, strict=True):
        assert (receipt.task_id, receipt.created) == (task.task_id, True)
        ((_, fields),) = await parts.streams.commands.xrange(
            key, min=receipt.entry_id, max=receipt.entry_id
        )
        assert fields[b"id"].decode() == task.task_id


async def test_what_arrives_meanwhile_is_the_next_group(parts, submit, held):  # noqa: F811
    """The first caller waits for nobody; those who come while he is on his way go together."""
    first = asyncio.create_task(parts.submitter.submit(shout()))
    await wait_until(lambda: held.groups, what="the first is on its way")
    others = [shout() for _ in range(20)]
    rest = asyncio.create_task(submit(*others))
    await asyncio.sleep(0)
    held.set()

    await asyncio.gather(first, rest)

    assert held.groups == [1, 20]
    assert await rows(parts.database, COMMITS) == [{"commits": 2, "tasks": 21}]


async def test_the_audit_says_of_each_what_the_record_says_elsewhere(parts):  # noqa: F811
    """The row that SQL makes is the one that `state_changed` would make, with its own actor."""
    later = datetime.now(UTC) + timedelta(hours=1)
    asked = {f"key:{n}": shout(run_at=run_at) for n, run_at in enumerate([None, later, None])}

    await asyncio.gather(
        *(parts.submitter.submit_many([task], actor=actor) for actor, task in asked.items())
    )
    await parts.submitter.submit_many([many := shout(), shout()], actor="many")

    for actor, task in (asked | {"many": many}).items():
        (row,) = await rows(
            parts.database,
            "SELECT a.*, t.created_at FROM audit_events a JOIN tasks t ON t.id::text = object_id"
            " WHERE object_id = :id",
            id=task.task_id,
        )
        now = row["created_at"]
        wanted = state_changed(
            accepted(task, digest=task.digest, now=now), before=None, at=now, actor=actor
        )
        for name in type(wanted).__slots__:
            assert name == "id" or row[name] == getattr(wanted, name), name


async def test_a_conflict_refuses_its_own_task_only(parts, submit):  # noqa: F811
    """Among twenty good ones, one whose id has another content, and one that is there already."""
    there = shout(idempotency_key="k")
    await parts.submitter.submit(there)
    good = [shout() for _ in range(20)]

    conflict, again, *receipts = await submit(shout("other", idempotency_key="k"), there, *good)

    assert isinstance(conflict, TaskIdConflict)
    assert again.created is False
    assert all(each.created and each.entry_id for each in receipts)
    assert await rows(parts.database, COMMITS) == [{"commits": 2, "tasks": 21}]
    assert await length(parts) == 1 + 1 + 20  # the fixture's own


async def test_one_id_twice_in_a_group_is_one_task(parts, submit):  # noqa: F811
    """The first is accepted; the same content is a duplicate, another one a conflict."""
    first, same, other, stranger = await submit(
        shout("x", idempotency_key="k"),
        shout("x", idempotency_key="k"),
        shout("y", idempotency_key="k"),
        shout("z"),
    )

    assert (first.created, same.created, stranger.created) == (True, False, True)
    assert isinstance(other, TaskIdConflict)
    found = await rows(parts.database, "SELECT input->>'text' AS text FROM tasks ORDER BY 1")
    assert [each["text"] for each in found] == ["x", "z"]
    assert len(await rows(parts.database, "SELECT 1 FROM audit_events")) == 2


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ({"attempt": 999_999}, IntegrityError),
        ({"input": {"at": object()}}, PydanticSerializationError),
    ],
    ids=["what Postgres refuses", "what is no JSON"],
)
async def test_a_refused_row_fails_alone(parts, submit, bad, error):  # noqa: F811
    """Its caller hears why; its neighbours are accepted and published."""
    await execute(parts.database, "ALTER TABLE tasks ADD CHECK (attempt < 1000)")

    *receipts, refused = await submit(*(shout() for _ in range(5)), shout().model_copy(update=bad))

    assert isinstance(refused, error)
    assert all(each.created and each.entry_id for each in receipts)
    assert len(await rows(parts.database, "SELECT 1 FROM tasks")) == 5


async def test_a_caller_who_goes_away_breaks_nothing(parts, submit, held):  # noqa: F811
    """What was on its way stays accepted and is published; what was not is taken back."""
    gone, stays = (asyncio.create_task(parts.submitter.submit(shout(t))) for t in ("gone", "stays"))
    await wait_until(lambda: held.groups, what="on their way")
    waiting, next_one = (asyncio.create_task(parts.submitter.submit(shout(t))) for t in ("w", "n"))
    await asyncio.sleep(0)
    gone.cancel()
    waiting.cancel()
    await asyncio.wait({gone, waiting})
    held.set()

    assert (await stays).created
    assert (await next_one).created
    await parts.submitter.close()
    assert held.groups == [2, 1]
    found = await rows(parts.database, "SELECT input->>'text' AS text FROM tasks ORDER BY 1")
    assert [each["text"] for each in found] == ["gone", "n", "stays"]
    assert await length(parts) == 1 + 3  # the fixture's own


async def sleep_on_insert(database) -> None:
    await execute(
        database,
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_sleep(60); RETURN NEW; END $$",
    )
    await execute(
        database,
        "CREATE TRIGGER slow BEFORE INSERT ON tasks FOR EACH ROW EXECUTE FUNCTION slow()",
    )


async def test_an_outage_fails_its_group_and_nothing_after_it(parts, submit):  # noqa: F811
    """The connection dies with the statement: all of it hear of it, none is accepted."""
    await sleep_on_insert(parts.database)
    tasks = [shout() for _ in range(10)]
    submitting = asyncio.create_task(submit(*tasks))
    kill = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE wait_event = 'PgSleep' AND datname = current_database()"
    )
    await wait_until(lambda: rows(parts.database, kill), what="the statement was on its way")

    answers = await asyncio.wait_for(submitting, 5)

    assert [type(each) for each in answers] == [Unavailable] * 10
    await execute(parts.database, "DROP TRIGGER slow ON tasks")
    assert await rows(parts.database, "SELECT 1 FROM tasks") == []
    (after,) = await submit(shout())
    assert after.created


async def test_a_server_that_does_not_answer_keeps_nobody(parts, submit, monkeypatch):  # noqa: F811
    """Whoever waits for it hears that it is away, and who comes later finds a new connection."""
    await sleep_on_insert(parts.database)
    monkeypatch.setattr(session, "ANSWER_TIMEOUT", 0.3)

    answers = await asyncio.wait_for(submit(shout(), shout()), 5)

    assert [type(each) for each in answers] == [Unavailable] * 2
    await execute(parts.database, "DROP TRIGGER slow ON tasks")
    (after,) = await submit(shout())
    assert after.created


async def test_after_a_restart_of_postgres_the_first_one_is_accepted(
    parts,  # noqa: F811
    submit,
    database_url,
):
    """Connections that died while nobody used them fail nobody."""
    connections = [await parts.database.engine.raw_connection() for _ in range(5)]
    drivers = [session._driver_of(each) for each in connections]
    for each in connections:
        each.close()  # back into the pool
    admin = await asyncpg.connect(database_url)
    others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    assert len(await admin.fetch(f"SELECT pg_terminate_backend(pid) {others}")) >= 5
    # The news of it may take a moment more than their end: nobody can know better before.
    await wait_until(lambda: all(each.is_closed() for each in drivers), what="that is heard")
    await admin.close()

    (receipt,) = await submit(shout())

    assert receipt.created


async def test_a_row_that_somebody_holds_keeps_only_its_own_caller(parts, submit):  # noqa: F811
    """An id in an open transaction is waited for alone, and then it is a duplicate."""
    task, began = shout(), time.monotonic()
    async with parts.database.sessions() as session:
        await parts.submitter.submit(task, session=session)
        submitting = asyncio.create_task(submit(task))
        (neighbour,) = await submit(shout())
        (next_one,) = await submit(shout())
        assert neighbour.created
        assert next_one.created
        assert time.monotonic() - began < 5, "that is half of what one caller waits for a lock"
        assert not submitting.done()
        await session.commit()

    (receipt,) = await submitting
    assert receipt.created is False


async def test_of_many_with_one_conflict_nothing_is_accepted(parts, submit):  # noqa: F811
    """Bulk is a transaction of its own: all or none."""
    await parts.submitter.submit(shout(idempotency_key="k"))

    with pytest.raises(TaskIdConflict):
        await parts.submitter.submit_many([shout(), shout("other", idempotency_key="k"), shout()])

    assert len(await rows(parts.database, "SELECT 1 FROM tasks")) == 1
    assert len(await rows(parts.database, "SELECT 1 FROM audit_events")) == 1


@pytest.mark.parametrize("many", [1, 3])
async def test_a_clock_that_is_ahead_makes_no_row_of_a_time_to_come(parts, monkeypatch, many):  # noqa: F811
    """P1: the reconciler would not look at it until then, should it never be published."""

    class Ahead(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(hours=1)

    monkeypatch.setattr("orchestrator.db.accepting.datetime", Ahead)

    await parts.submitter.submit_many([shout(str(n)) for n in range(many)])

    found = await rows(parts.database, "SELECT created_at <= now() AS past FROM tasks")
    assert [row["past"] for row in found] == [True] * many
