"""What becomes of the ticks of schedules: which schedules are due, and their ticks with tasks.

The key of `schedule_ticks` is what keeps any number of schedulers apart: of several that decide
one tick, one inserts it, and only that one accepts its task. Locks merely save the others work.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple, Self
from uuid import uuid5

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.cron import (
    CatchUp,
    Crontab,
    Overlap,
    Plan,
    TickOutcome,
    missed_between,
)
from orchestrator.db.accepting import accept
from orchestrator.db.bulk import Insert
from orchestrator.db.columns import OPEN
from orchestrator.db.models import ScheduleTickRow
from orchestrator.db.recording import write_audit
from orchestrator.record import AuditEntry
from orchestrator.task import NAMESPACE, Task, TaskId, iso, new_id

BATCH = 100  # schedules of one transaction
# A scheduler that is stopped (SIGSTOP) in its transaction holds its rows back for so long.
STALLED_MS = 5_000
# An optimisation, no guard: schedulers share the due schedules instead of doing them all twice.
ROW_LOCK = "FOR UPDATE SKIP LOCKED"

_ACTIVE = "paused_at IS NULL AND deleted_at IS NULL"
# A tick that waits comes after the last one that fired, whose task names its time.
_WAITING = (
    "(SELECT min(k.fire_at) FROM schedule_ticks k WHERE k.schedule_id = s.id"
    " AND k.outcome = 'waiting' AND k.fire_at >"
    " coalesce((t.metadata ->> 'fire_at')::timestamptz, '-infinity'))"
)
_NOT_OPEN = f"NOT coalesce(t.{OPEN}, false)"
_DUE = (
    f"SELECT * FROM schedules WHERE {_ACTIVE} AND id IN ("  # noqa: S608 - this module's constants
    f"SELECT s.id FROM schedules s WHERE {_ACTIVE} AND s.next_tick_at <= now() UNION ALL"
    " SELECT s.id FROM schedules s LEFT JOIN tasks t ON t.id = s.last_task_id"
    f" WHERE {_ACTIVE} AND s.overlap = 'queue' AND {_NOT_OPEN} AND {_WAITING} IS NOT NULL"
    f") ORDER BY id LIMIT {BATCH}"
)
_STANDING = text(
    f"SELECT s.id, NOT {_NOT_OPEN} AS previous_open,"  # noqa: S608
    f" CASE WHEN s.overlap = 'queue' THEN {_WAITING} END AS waiting"
    " FROM schedules s LEFT JOIN tasks t ON t.id = s.last_task_id"
    " WHERE s.id = ANY(CAST(:ids AS uuid[]))"
)
_CLOCK = text(
    "SELECT now(), clock_timestamp(),"
    f" set_config('idle_in_transaction_session_timeout', '{STALLED_MS}', true)"
)
_NEXT = text(
    f"SELECT min(next_tick_at) FROM schedules WHERE {_ACTIVE} AND next_tick_at > now()"  # noqa: S608
)
_INSERT_TICKS = Insert(
    "schedule_ticks",
    {
        "schedule_id": "uuid", "fire_at": "timestamptz", "revision": "int", "outcome": "text",
        "reason": "text", "task_id": "uuid", "decided_by": "text",
    },
    "ON CONFLICT DO NOTHING RETURNING schedule_id::text, fire_at",
)  # fmt: skip
# Of two that release a waiting tick, the second finds it no longer waiting.
_RELEASE = text(
    "UPDATE schedule_ticks SET outcome = :outcome, reason = :reason,"
    " task_id = CAST(:task_id AS uuid), decided_at = now(), decided_by = :decided_by"
    " WHERE schedule_id = :schedule_id AND fire_at = :fire_at AND outcome = 'waiting'"
)
_DROP_WAITING = text(
    "UPDATE schedule_ticks SET outcome = 'skipped', reason = :reason, decided_at = now(),"
    " decided_by = :actor WHERE schedule_id = :id AND outcome = 'waiting' RETURNING fire_at"
)
# The revision: an edit that came in between has set its own times.
_ADVANCE = text(
    "UPDATE schedules s SET decided_until = greatest(s.decided_until, d.until),"
    " next_tick_at = greatest(s.next_tick_at, d.next),"
    " last_task_id = coalesce(d.last, s.last_task_id)"
    " FROM unnest(CAST(:ids AS uuid[]), CAST(:revisions AS int[]), CAST(:until AS timestamptz[]),"
    " CAST(:next AS timestamptz[]), CAST(:last AS uuid[])) AS d(id, revision, until, next, last)"
    " WHERE s.id = d.id AND s.revision = d.revision"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A row of `schedules`."""

    id: str
    name: str
    agent: str
    expression: str
    timezone: str
    input: Mapping[str, Any]
    catchup: CatchUp
    catchup_window: timedelta
    overlap: Overlap
    origin: str  # "agent" or "api"
    revision: int
    decided_until: datetime
    next_tick_at: datetime
    last_task_id: TaskId | None
    paused_at: datetime | None
    created_at: datetime
    updated_at: datetime

    @property
    def crontab(self) -> Crontab:
        """Its rule. Raises InvalidSchedule where this machine cannot read it, as no such zone."""
        return Crontab(
            expression=self.expression,
            input=self.input,
            timezone=self.timezone,
            name=self.name,
            catchup=self.catchup,
            catchup_window=self.catchup_window,
            overlap=self.overlap,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A row of `schedule_ticks`."""

    schedule_id: str
    fire_at: datetime
    revision: int
    outcome: TickOutcome
    reason: str | None
    task_id: TaskId | None
    decided_by: str
    decided_at: datetime | None = None

    @classmethod
    def of(cls, row: ScheduleTickRow) -> Self:
        """From its row."""
        return cls(
            schedule_id=row.schedule_id,
            fire_at=row.fire_at,
            revision=row.revision,
            outcome=TickOutcome(row.outcome),
            reason=row.reason,
            task_id=row.task_id,
            decided_by=row.decided_by,
            decided_at=row.decided_at,
        )


class Due(NamedTuple):
    """A schedule with ticks to decide, and what stands in their way."""

    schedule: Schedule
    previous_open: bool  # the task of the last fired tick has not ended
    waiting: datetime | None  # the tick that waits for it


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """A plan, with a task for each tick that it fires."""

    schedule: Schedule
    plan: Plan
    tasks: Mapping[datetime, Task]


class Clock(NamedTuple):
    """The database's: `now` is the transaction's, by which ticks are due."""

    now: datetime
    reading: datetime


def tick_task_id(schedule_id: str, fire_at: datetime) -> TaskId:
    """The id of a tick's task: the same whoever fires it."""
    return str(uuid5(NAMESPACE, f"tick\x1f{schedule_id}\x1f{iso(fire_at)}"))


def schedule_of(row: Any) -> Schedule:
    """From a row of `schedules`, the ORM's or a plain one."""
    return Schedule(
        id=str(row.id),
        name=row.name,
        agent=row.agent,
        expression=row.expression,
        timezone=row.timezone,
        input=row.input,
        catchup=CatchUp(row.catchup),
        catchup_window=timedelta(seconds=row.catchup_window),
        overlap=Overlap(row.overlap),
        origin=row.origin,
        revision=row.revision,
        decided_until=row.decided_until,
        next_tick_at=row.next_tick_at,
        last_task_id=str(row.last_task_id) if row.last_task_id else None,
        paused_at=row.paused_at,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


async def clock(connection: AsyncConnection) -> Clock:
    """Read the time, at the beginning of a scheduler's transaction."""
    now, reading, _ = (await connection.execute(_CLOCK)).one()
    return Clock(now, reading)


async def next_tick(connection: AsyncConnection) -> datetime | None:
    """When the next tick of any schedule is due; those due already are somebody's."""
    found: datetime | None = (await connection.execute(_NEXT)).scalar_one()
    return found


async def due(connection: AsyncConnection) -> list[Due]:
    """Up to BATCH schedules with something to decide, that no other scheduler has in hand."""
    rows = (await connection.execute(text(f"{_DUE} {ROW_LOCK}"))).all()
    if not rows:
        return []
    # A second statement sees what was committed until the locks were had; the first does not.
    ids = [str(row.id) for row in rows]
    standing = {row.id: row for row in await connection.execute(_STANDING, {"ids": ids})}
    return [
        Due(schedule_of(row), standing[row.id].previous_open, standing[row.id].waiting)
        for row in rows
        if row.id in standing
    ]


async def decide(
    connection: AsyncConnection, decided: Sequence[Decided], *, now: datetime, actor: str
) -> list[Task]:
    """Write down what was decided; the tasks of the ticks that nobody else had decided."""
    fresh = {
        (tick.schedule_id, tick.fire_at): (tick, each.schedule)
        for each in decided
        for tick in _ticks(each, actor, released=False)
    }
    won = await _INSERT_TICKS.run(connection, [tick for tick, _ in fresh.values()])
    ours = [fresh[schedule_id, fire_at] for schedule_id, fire_at in won]
    ours += [
        (tick, each.schedule)
        for each in decided
        for tick in _ticks(each, actor, released=True)
        if await _release(connection, tick)
    ]
    ours.sort(key=lambda pair: pair[0].fire_at)
    tasks = {task.task_id: task for each in decided for task in each.tasks.values()}
    fired = [tasks[tick.task_id] for tick, _ in ours if tick.task_id is not None]
    if fired:
        await accept(connection, fired, actor=actor)
    await write_audit(connection, [_said(schedule, tick, now) for tick, schedule in ours])
    last = {tick.schedule_id: tick.task_id for tick, _ in ours if tick.task_id is not None}
    await connection.execute(
        _ADVANCE,
        {
            "ids": [each.schedule.id for each in decided],
            "revisions": [each.schedule.revision for each in decided],
            "until": [each.plan.decided_until for each in decided],
            "next": [each.plan.next_tick_at for each in decided],
            "last": [last.get(each.schedule.id) for each in decided],
        },
    )
    return fired


async def settle_missed(
    connection: AsyncConnection, schedule: Schedule, *, until: datetime, reason: str, actor: str
) -> None:
    """Record what is undecided up to `until` as missed; the caller moves the schedule on."""
    decisions = missed_between(schedule.crontab, schedule.decided_until, until, reason)
    plan = Plan(decisions=decisions, decided_until=until, next_tick_at=until)
    ticks = _ticks(Decided(schedule=schedule, plan=plan, tasks={}), actor, released=False)
    won = {fire_at for _, fire_at in await _INSERT_TICKS.run(connection, ticks)}
    ours = [_said(schedule, tick, until) for tick in ticks if tick.fire_at in won]
    await write_audit(connection, ours)


async def drop_waiting(
    connection: AsyncConnection, schedule_id: str, reason: str, now: datetime, actor: str
) -> None:
    """Skip the tick that waits, if one does: its schedule was paused, changed or deleted."""
    values = {"id": schedule_id, "reason": reason, "actor": actor}
    dropped = (await connection.execute(_DROP_WAITING, values)).all()
    entries = [
        AuditEntry(
            id=new_id(), at=now, action="schedule.skipped", actor=actor, object_type="schedule",
            object_id=schedule_id, detail={"fire_at": iso(row.fire_at), "reason": reason},
        )
        for row in dropped
    ]  # fmt: skip
    await write_audit(connection, entries)


def _ticks(each: Decided, actor: str, *, released: bool) -> list[Tick]:
    return [
        Tick(
            schedule_id=each.schedule.id,
            fire_at=decision.fire_at,
            revision=each.schedule.revision,
            outcome=decision.outcome,
            reason=decision.reason,
            task_id=(
                each.tasks[decision.fire_at].task_id
                if decision.outcome is TickOutcome.FIRED
                else None
            ),
            decided_by=actor,
        )
        for decision in each.plan.decisions
        if decision.released is released
    ]


async def _release(connection: AsyncConnection, tick: Tick) -> bool:
    done = await connection.execute(
        _RELEASE,
        {
            "schedule_id": tick.schedule_id,
            "fire_at": tick.fire_at,
            "outcome": tick.outcome.value,
            "reason": tick.reason,
            "task_id": tick.task_id,
            "decided_by": tick.decided_by,
        },
    )
    return done.rowcount == 1


def _said(schedule: Schedule, tick: Tick, now: datetime) -> AuditEntry:
    detail = {
        "schedule": schedule.name, "agent": schedule.agent, "fire_at": iso(tick.fire_at),
        "revision": tick.revision, "reason": tick.reason, "task_id": tick.task_id,
    }  # fmt: skip
    return AuditEntry(
        id=new_id(), at=now, action=f"schedule.{tick.outcome.value}", actor=tick.decided_by,
        object_type="schedule", object_id=tick.schedule_id,
        detail={name: value for name, value in detail.items() if value is not None},
    )  # fmt: skip
