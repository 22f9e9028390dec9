"""Schedulers on real servers: what becomes of ticks, and what changes of a schedule do to them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import text

from orchestrator import Agent, RunContext
from orchestrator.cron import Crontab, crontab
from orchestrator.db import ticks
from orchestrator.db.schedules import ScheduleStore
from orchestrator.db.session import Database
from orchestrator.db.ticks import Schedule, tick_task_id
from orchestrator.errors import ConfigurationError, InvalidSchedule
from orchestrator.parts import Parts
from orchestrator.registry import AgentRegistry
from orchestrator.services.scheduler import Scheduler
from orchestrator.settings import Settings
from orchestrator.task import Priority
from tests.support import wait_until

ACTOR = "test"
NEVER = "0 0 29 2 *"


class Chime(Agent[dict[str, Any], str]):
    """Never run here: what counts is that its tasks are accepted."""

    async def run(self, task_input: dict[str, Any], ctx: RunContext) -> str:
        raise NotImplementedError(task_input, ctx)


class Strict(Agent[dict[str, int], str]):
    """Takes numbers only."""

    async def run(self, task_input: dict[str, int], ctx: RunContext) -> str:
        raise NotImplementedError(task_input, ctx)


REGISTRY = AgentRegistry([Chime, Strict])


@pytest.fixture
def store(database: Database) -> ScheduleStore:
    return ScheduleStore(database)


@pytest.fixture
async def new_scheduler(settings: Settings) -> AsyncIterator[Callable[..., Scheduler]]:
    """Makes schedulers with connections of their own, as other processes have them."""
    opened: list[Parts] = []

    def make(name: str = "scheduler-1", **changed: Any) -> Scheduler:
        parts = Parts(settings.model_copy(update=changed), role="scheduler", registry=REGISTRY)
        opened.append(parts)
        return Scheduler(ScheduleStore(parts.database), parts.submitter, REGISTRY, name=name)

    yield make
    for parts in opened:
        await parts.close()


@asynccontextmanager
async def running(*schedulers: Scheduler) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(each.run()) for each in schedulers]
    try:
        yield
    finally:
        for each in schedulers:
            each.stop()
        await asyncio.gather(*tasks)


async def rows(database: Database, sql: str, **params: Any) -> list[Any]:
    async with database.transaction() as connection:
        return list(await connection.execute(text(sql), params))


async def execute(database: Database, sql: str, **params: Any) -> None:
    async with database.transaction() as connection:
        await connection.execute(text(sql), params)


async def nobody_looked_since(database: Database, schedule: Schedule, since: datetime) -> None:
    """An outage: the schedule stands as it stood then."""
    await execute(
        database,
        "UPDATE schedules SET decided_until = :since, next_tick_at = :next WHERE id = :id",
        id=schedule.id, since=since, next=schedule.crontab.next_tick(since),
    )  # fmt: skip


async def outcomes(store: ScheduleStore, schedule: Schedule) -> list[str]:
    found = await store.ticks(schedule.id, limit=1000)
    return [tick.outcome.value for tick in reversed(found)]


async def acts(database: Database, schedule: Schedule) -> list[str]:
    found = await rows(
        database, "SELECT action FROM audit_events WHERE object_id = :id ORDER BY at, id",
        id=schedule.id,
    )  # fmt: skip
    return [row.action for row in found]


def ago(*minutes: int) -> tuple[list[datetime], str]:
    """The whole minutes that are so many minutes ago, and a line that fires just at those."""
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    moments = [now - timedelta(minutes=each) for each in minutes]
    return moments, f"{','.join(str(each.minute) for each in moments)} * * * *"


async def fired_ticks(store: ScheduleStore, schedule: Schedule) -> int:
    return (await outcomes(store, schedule)).count("fired")


@pytest.mark.parametrize("row_lock", [ticks.ROW_LOCK, ""], ids=["skip locked", "no lock"])
async def test_two_schedulers_fire_each_tick_once(  # noqa: PLR0917 - fixtures
    store, new_scheduler, database, streams, monkeypatch, row_lock
):
    """The key alone keeps schedulers apart; the lock only saves work."""
    monkeypatch.setattr(ticks, "ROW_LOCK", row_lock)
    schedule = await store.create("chime", crontab("* * * * * *", overlap="allow"), actor=ACTOR)

    async with running(new_scheduler("one"), new_scheduler("two")):
        await wait_until(
            lambda: _at_least(4, fired_ticks(store, schedule)), what="four ticks fired"
        )

    found = await store.ticks(schedule.id, limit=100)
    first, last = found[-1].fire_at, found[0].fire_at
    assert [tick.fire_at for tick in reversed(found)] == list(
        schedule.crontab.ticks_between(first - timedelta(seconds=1), last)
    )
    assert {tick.outcome.value for tick in found} == {"fired"}
    accepted = await rows(database, "SELECT id::text FROM tasks")
    assert sorted(row.id for row in accepted) == sorted(str(tick.task_id) for tick in found)
    assert await streams.commands.xlen(streams.keys.lane("default", Priority.NORMAL)) == len(found)
    assert (await acts(database, schedule)).count("schedule.fired") == len(found)
    late = [tick.decided_at - tick.fire_at for tick in found[:-1]]
    assert max(late) < timedelta(seconds=2)
    print("late, ms:", sorted(round(each.total_seconds() * 1000, 1) for each in late))


async def _at_least(number: int, counted: Any) -> bool:
    return await counted >= number


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("latest", ["missed", "missed", "fired"]),
        ("all", ["missed", "fired", "fired"]),
        ("none", ["missed", "missed", "missed"]),
    ],
)
async def test_after_an_outage(store, new_scheduler, database, policy, expected):
    """By policy within the window of ten minutes, older ones missed; all of it recorded once."""
    moments, line = ago(20, 6, 3)
    schedule = await store.create(
        "chime", crontab(line, catchup=policy, overlap="allow"), actor=ACTOR
    )
    await nobody_looked_since(database, schedule, moments[0] - timedelta(minutes=1))
    scheduler = new_scheduler()

    await scheduler.look()
    await scheduler.look()

    found = list(reversed(await store.ticks(schedule.id, limit=10)))
    assert [tick.fire_at for tick in found] == moments
    assert [tick.outcome.value for tick in found] == expected
    assert all(tick.reason for tick in found if tick.outcome.value == "missed")
    tasks = await rows(database, "SELECT id::text, metadata FROM tasks ORDER BY id")
    assert [row.id for row in tasks] == sorted(
        tick_task_id(schedule.id, tick.fire_at) for tick in found if tick.task_id
    )
    assert (await acts(database, schedule))[1:] == [f"schedule.{each}" for each in expected]


@pytest.mark.parametrize(
    ("policy", "first", "later"),
    [
        ("skip", ["fired", "skipped", "skipped"], ["fired", "skipped", "skipped"]),
        ("queue", ["fired", "waiting", "skipped"], ["fired", "fired", "skipped"]),
        ("allow", ["fired", "fired", "fired"], ["fired", "fired", "fired"]),
    ],
)
async def test_ticks_while_the_previous_task_runs(  # noqa: PLR0917 - fixtures
    store, new_scheduler, database, policy, first, later
):
    """skip: none; queue: one waits and fires when the task has ended; allow: all."""
    moments, line = ago(4, 3, 2)
    schedule = await store.create("chime", crontab(line, catchup="all", overlap=policy), actor="me")
    await nobody_looked_since(database, schedule, moments[0] - timedelta(minutes=1))
    scheduler = new_scheduler()

    await scheduler.look()
    at_first = await outcomes(store, schedule)
    await execute(database, "UPDATE tasks SET state = 'succeeded'")
    await scheduler.look()
    await scheduler.look()

    assert at_first == first
    assert await outcomes(store, schedule) == later
    fired = [tick for tick in await store.ticks(schedule.id, limit=9) if tick.task_id]
    assert {tick.task_id for tick in fired} == {
        tick_task_id(schedule.id, tick.fire_at) for tick in fired
    }
    assert len(await rows(database, "SELECT 1 FROM tasks")) == later.count("fired")


async def test_two_schedulers_release_a_waiting_tick_once(
    store, new_scheduler, database, monkeypatch
):
    """Also without the lock: of two updates the second finds nothing waiting."""
    monkeypatch.setattr(ticks, "ROW_LOCK", "")
    moments, line = ago(3, 2)
    schedule = await store.create("chime", crontab(line, catchup="all", overlap="queue"), actor="x")
    await nobody_looked_since(database, schedule, moments[0] - timedelta(minutes=1))
    one, two = new_scheduler("one"), new_scheduler("two")
    await one.look()
    await execute(database, "UPDATE tasks SET state = 'succeeded'")

    await asyncio.gather(one.look(), two.look())

    assert await outcomes(store, schedule) == ["fired", "fired"]
    assert (await acts(database, schedule)).count("schedule.fired") == 2


async def test_a_pause_drops_the_tick_that_waits(store, new_scheduler, database):
    """What was due before the pause does not fire after it."""
    moments, line = ago(3, 2)
    schedule = await store.create("chime", crontab(line, catchup="all", overlap="queue"), actor="x")
    await nobody_looked_since(database, schedule, moments[0] - timedelta(minutes=1))
    scheduler = new_scheduler()
    await scheduler.look()

    await store.pause(schedule.id, actor=ACTOR)
    await execute(database, "UPDATE tasks SET state = 'succeeded'")
    await store.resume(schedule.id, actor=ACTOR)
    await scheduler.look()

    assert await outcomes(store, schedule) == ["fired", "skipped"]


async def test_a_paused_schedule_fires_nothing_and_does_not_make_up_for_it(
    store, new_scheduler, database
):
    """What came due during the pause is recorded as missed, with that reason."""
    moments, line = ago(4, 2)
    schedule = await store.create("chime", crontab(line, catchup="all"), actor=ACTOR)
    await store.pause(schedule.id, actor=ACTOR)
    await store.pause(schedule.id, actor=ACTOR)
    await nobody_looked_since(database, schedule, moments[0] - timedelta(minutes=1))
    scheduler = new_scheduler()

    await scheduler.look()
    during = await store.ticks(schedule.id, limit=10)
    resumed = await store.resume(schedule.id, actor=ACTOR)
    await scheduler.look()

    assert during == []
    assert resumed.paused_at is None
    assert resumed.next_tick_at > datetime.now(UTC)
    found = await store.ticks(schedule.id, limit=10)
    assert [(tick.outcome.value, tick.reason) for tick in found] == [
        ("missed", "the schedule was paused")
    ] * 2
    assert await acts(database, schedule) == [
        "schedule.created", "schedule.paused", "schedule.missed", "schedule.missed",
        "schedule.resumed",
    ]  # fmt: skip


async def test_an_edited_schedule_does_not_fire_the_past(store, new_scheduler, database):
    """A new revision begins at its own time; what the old one owed is recorded as missed."""
    moments, line = ago(5, 3)
    schedule = await store.create("chime", crontab(line, catchup="all"), actor=ACTOR)
    await nobody_looked_since(database, schedule, moments[0] - timedelta(minutes=1))

    edited = await store.update(
        schedule.id, crontab(f"{line.split()[0]},{ago(1)[0][0].minute} * * * *", catchup="all"),
        actor=ACTOR,
    )  # fmt: skip
    await new_scheduler().look()

    assert edited.revision == 2
    found = await store.ticks(schedule.id, limit=10)
    assert [(tick.fire_at, tick.outcome.value, tick.revision) for tick in reversed(found)] == [
        (moment, "missed", 1) for moment in moments
    ]
    assert await rows(database, "SELECT 1 FROM tasks") == []
    same = await store.update(schedule.id, edited.crontab, actor=ACTOR)
    assert same.revision == 2


async def test_declared_schedules_follow_their_agents(store, database):
    """Added, unchanged, changed, taken away; those of the API stay."""
    made = await store.create("chime", crontab(NEVER, name="by hand"), actor=ACTOR)
    [first] = await store.sync_declared([("chime", crontab("0 6 * * *"))], actor=ACTOR)
    await store.pause(first.id, actor=ACTOR)

    [same] = await store.sync_declared([("chime", crontab("0 6 * * *"))], actor=ACTOR)
    changed, other = await store.sync_declared(
        [("chime", crontab("0 6 * * *", input={"a": 1})), ("strict", crontab(NEVER, name="x"))],
        actor=ACTOR,
    )
    await store.sync_declared([("strict", crontab(NEVER, name="x"))], actor=ACTOR)

    assert (first.name, first.origin) == ("chime:0 6 * * *", "agent")
    assert (same.id, same.revision, same.paused_at is None) == (first.id, 1, False)
    assert (changed.id, changed.revision, changed.input) == (first.id, 2, {"a": 1})
    assert changed.paused_at is not None
    assert [each.name for each in await store.page(limit=10)] == ["by hand", "x"]
    assert await store.get(first.id) is None
    assert await acts(database, first) == [
        "schedule.created", "schedule.paused", "schedule.updated", "schedule.deleted",
    ]  # fmt: skip
    assert (await acts(database, other), await acts(database, made)) == (
        ["schedule.created"],
        ["schedule.created"],
    )
    [again] = await store.sync_declared([("chime", crontab("0 6 * * *"))], actor=ACTOR)
    assert again.id != first.id


async def test_schedulers_that_start_together_declare_once(store, new_scheduler, monkeypatch):
    """The declarations are compared one after the other."""
    monkeypatch.setattr(Chime, "schedules", [crontab(NEVER)])

    await asyncio.gather(*(new_scheduler(str(each)).look() for each in range(3)))

    assert [each.revision for each in await store.page(limit=10)] == [1]


async def test_what_is_wrong_with_a_declaration_is_said(store, new_scheduler, monkeypatch):
    """Two of one name, the name of one made by hand, an input that does not validate."""
    twice = [("chime", crontab(NEVER)), ("chime", crontab(NEVER, input={"a": 1}))]
    with pytest.raises(InvalidSchedule, match="two schedules are named 'chime:0 0 29 2"):
        await store.sync_declared(twice, actor=ACTOR)

    await store.create("chime", crontab(NEVER, name="mine"), actor=ACTOR)
    with pytest.raises(InvalidSchedule, match="the name of one made through the API"):
        await store.sync_declared([("chime", crontab(NEVER, name="mine"))], actor=ACTOR)

    monkeypatch.setattr(Strict, "schedules", [crontab(NEVER, input={"a": "b"})])
    with pytest.raises(ConfigurationError, match="input of agent 'strict' is not valid: /a"):
        await new_scheduler().run()


async def test_schedules_by_hand(store):
    """Names are unique, pages go by name, what is declared is changed in its code only."""
    for name in ("c", "a", "b"):
        await store.create("chime", crontab(NEVER, name=name), actor=ACTOR)
    [declared] = await store.sync_declared([("strict", crontab(NEVER))], actor=ACTOR)

    with pytest.raises(InvalidSchedule, match="a schedule named 'a' exists"):
        await store.create("chime", crontab(NEVER, name="a"), actor=ACTOR)
    for change in (store.delete(declared.id, actor=ACTOR),
                   store.update(declared.id, crontab("* * * * *"), actor=ACTOR)):  # fmt: skip
        with pytest.raises(InvalidSchedule, match="is declared on agent 'strict'"):
            await change
    first = await store.page(limit=2, agent="chime")
    rest = await store.page(limit=2, after=first[-1].name, agent="chime")
    assert [each.name for each in (*first, *rest)] == ["a", "b", "c"]

    gone = await store.delete(first[0].id, actor=ACTOR)
    assert gone.name == "a"
    assert await store.find("a") is None
    assert await store.delete(gone.id, actor=ACTOR) is None
    assert await store.pause(gone.id, actor=ACTOR) is None
    assert (await store.create("chime", crontab(NEVER, name="a"), actor=ACTOR)).id != gone.id
    assert (await store.find("b")).crontab == Crontab(expression=NEVER, name="b")


async def test_one_bad_schedule_does_not_hold_up_the_others(store, new_scheduler, database):
    """No such agent, an input that does not validate, a zone nobody knows, a task id in use."""
    moments, line = ago(2)
    names = {}
    for agent, task_input in (("gone", {}), ("strict", {"a": "b"}), ("chime", {}), ("chime", {})):
        name = f"{agent}-{len(names)}"
        made = await store.create(agent, crontab(line, name=name, input=task_input), actor=ACTOR)
        names[name] = made
        await nobody_looked_since(database, made, moments[0] - timedelta(minutes=1))
    unreadable = await store.create("chime", crontab(line, name="unreadable"), actor=ACTOR)
    await nobody_looked_since(database, unreadable, moments[0] - timedelta(minutes=1))
    await execute(
        database, "UPDATE schedules SET timezone = 'Mars/Olympus' WHERE id = :id", id=unreadable.id
    )
    await execute(
        database,
        "INSERT INTO tasks (id, agent, state, progress, created_at, digest)"
        " VALUES (:id, 'other', 'queued', 11, now(), 'x')",
        id=tick_task_id(names["chime-3"].id, moments[0]),
    )
    scheduler = new_scheduler()

    pauses = [await scheduler.look() for _ in range(3)]

    found = {name: await store.ticks(made.id, limit=5) for name, made in names.items()}
    shown = {name: (each.outcome.value, each.reason) for name, [each] in found.items()}
    assert shown["chime-2"] == ("fired", None)
    assert shown["gone-0"] == ("missed", "no agent named 'gone' registered: chime, strict")
    assert shown["strict-1"][1].startswith("input of agent 'strict' is not valid: /a")
    assert shown["chime-3"][1].endswith("exists with another agent or input")
    [broken] = await rows(
        database, "SELECT paused_at FROM schedules WHERE id = :id", id=unreadable.id
    )
    assert broken.paused_at is not None
    assert (await acts(database, unreadable))[-1] == "schedule.paused"
    assert pauses[-1] > 0
    with pytest.raises(InvalidSchedule, match="unknown time zone 'Mars/Olympus'"):
        await store.resume(unreadable.id, actor=ACTOR)
    assert await store.delete(unreadable.id, actor=ACTOR) is not None


async def test_while_redis_is_away_ticks_stand_and_their_tasks_wait(store, new_scheduler, database):
    """The row is what accepts; publishing is made up for by the reconciler."""
    moments, line = ago(2)
    schedule = await store.create("chime", crontab(line), actor=ACTOR)
    await nobody_looked_since(database, schedule, moments[0] - timedelta(minutes=1))
    scheduler = new_scheduler(redis_url=type(Settings().redis_url)("redis://127.0.0.1:1/0"))

    async with running(scheduler):
        await wait_until(lambda: _at_least(1, fired_ticks(store, schedule)), what="tick fired")

    [task] = await rows(database, "SELECT state, published_at FROM tasks")
    assert (task.state, task.published_at) == ("queued", None)


async def test_an_idle_scheduler_looks_about_once_a_second(store, new_scheduler, monkeypatch):
    """Postgres is not polled more often while nothing is due."""
    await store.create("chime", crontab(NEVER), actor=ACTOR)
    scheduler, began = new_scheduler(), datetime.now(UTC)
    looks: list[float] = []
    look = scheduler.look

    async def counted() -> float:
        looks.append((datetime.now(UTC) - began).total_seconds())
        return await look()

    monkeypatch.setattr(scheduler, "look", counted)
    async with running(scheduler):
        await wait_until(lambda: len(looks) >= 4, what="four looks")

    assert all(later - earlier > 0.9 for earlier, later in pairwise(looks))
