"""Schedules as they are defined: declared on agents or made through the API; each change audited.

Called by the scheduler at its start (`sync_declared`) and by the API. What becomes of their ticks
is written in `db/ticks.py`.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from pydantic_core import from_json
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.cron import Crontab, check_timezone
from orchestrator.db.bulk import json_text
from orchestrator.db.models import ScheduleRow, ScheduleTickRow
from orchestrator.db.recording import write_audit
from orchestrator.db.session import Database
from orchestrator.db.ticks import Schedule, Tick, drop_waiting, schedule_of, settle_missed
from orchestrator.errors import InvalidSchedule
from orchestrator.record import AuditEntry
from orchestrator.task import new_id

# Two schedulers that start together compare the declarations one after the other.
_SYNC_LOCK = 0x6175726F7261  # "aurora"


class ScheduleStore:
    """Rows of `schedules`. Knows no agents: whether one exists is the caller's to check.

    What a schedule was due before a change and no scheduler had decided is recorded as missed by
    that change, so an edit can neither fire the past nor lose it from the record.
    """

    def __init__(self, database: Database) -> None:
        """Store."""
        self.database = database

    async def sync_declared(
        self, declared: Iterable[tuple[str, Crontab]], *, actor: str
    ) -> list[Schedule]:
        """Make the schedules of origin "agent" be exactly these; how they stand then.

        A pause that somebody ordered stays. Raises InvalidSchedule on two of one name.
        """
        wanted = _by_name(declared)
        async with self.database.session() as session:
            await session.execute(text(f"SELECT pg_advisory_xact_lock({_SYNC_LOCK})"))
            now = await _now(session)
            rows = await session.scalars(
                select(ScheduleRow)
                .where(ScheduleRow.deleted_at.is_(None))
                .where((ScheduleRow.origin == "agent") | ScheduleRow.name.in_(wanted))
                .order_by(ScheduleRow.id)
                .with_for_update()
            )
            standing = {row.name: row for row in rows}
            for name, row in standing.items():
                if name not in wanted:
                    await _remove(session, row, now, actor)
                elif row.origin != "agent":
                    raise InvalidSchedule(
                        f"schedule {name!r} of agent {wanted[name][0]!r} has the name of one made"
                        " through the API; give the declaration another name="
                    )
            synced = []
            for name, (agent, crontab) in wanted.items():
                found = standing.get(name)
                if found is None:
                    found = await _insert(
                        session, now, name=name, agent=agent, crontab=crontab, origin="agent",
                        actor=actor,
                    )  # fmt: skip
                else:
                    await _revise(session, found, now, agent=agent, crontab=crontab, actor=actor)
                synced.append(schedule_of(found))
            return synced

    async def create(self, agent: str, crontab: Crontab, *, actor: str) -> Schedule:
        """Add one that begins now. Raises InvalidSchedule when its name is taken."""
        name = crontab.name or default_name(agent, crontab)
        async with self.database.session() as session:
            now = await _now(session)
            row = await _insert(
                session, now, name=name, agent=agent, crontab=crontab, origin="api", actor=actor
            )
            return schedule_of(row)

    async def get(self, schedule_id: str) -> Schedule | None:
        """The schedule, unless it was deleted."""
        async with self.database.session() as session:
            row = await session.get(ScheduleRow, schedule_id)
        return schedule_of(row) if row and row.deleted_at is None else None

    async def find(self, name: str) -> Schedule | None:
        """The schedule of that name."""
        async with self.database.session() as session:
            row = await session.scalar(
                select(ScheduleRow)
                .where(ScheduleRow.name == name)
                .where(ScheduleRow.deleted_at.is_(None))
            )
        return schedule_of(row) if row else None

    async def page(
        self, *, limit: int, after: str | None = None, agent: str | None = None
    ) -> list[Schedule]:
        """In the order of their names, those later than the name `after`."""
        query = select(ScheduleRow).where(ScheduleRow.deleted_at.is_(None))
        if after is not None:
            query = query.where(ScheduleRow.name > after)
        if agent is not None:
            query = query.where(ScheduleRow.agent == agent)
        async with self.database.session() as session:
            rows = await session.scalars(query.order_by(ScheduleRow.name).limit(limit))
            return [schedule_of(row) for row in rows]

    async def update(self, schedule_id: str, crontab: Crontab, *, actor: str) -> Schedule | None:
        """Give it another definition from now on: a new revision; None without such a schedule.

        Raises InvalidSchedule for one declared on an agent, and when the name is taken.
        """
        async with self.database.session() as session:
            row = await _locked(session, schedule_id)
            if row is None:
                return None
            _refuse_declared(row, "changed")
            now = await _now(session)
            await _revise(
                session, row, now, agent=row.agent, crontab=crontab, actor=actor, name=crontab.name
            )
            return schedule_of(row)

    async def delete(self, schedule_id: str, *, actor: str) -> Schedule | None:
        """Take it away; its ticks stay. None without such a schedule.

        Raises InvalidSchedule for one declared on an agent: it would come back.
        """
        async with self.database.session() as session:
            row = await _locked(session, schedule_id)
            if row is None:
                return None
            _refuse_declared(row, "deleted")
            gone = schedule_of(row)
            await _remove(session, row, await _now(session), actor)
            return gone

    async def pause(
        self, schedule_id: str, *, actor: str, reason: str | None = None
    ) -> Schedule | None:
        """Fire nothing until resumed; a tick that waits is skipped. Twice is once."""
        async with self.database.session() as session:
            row = await _locked(session, schedule_id)
            if row is not None and row.paused_at is None:
                now = row.paused_at = row.updated_at = await _now(session)
                await drop_waiting(
                    await session.connection(), row.id, "the schedule was paused", now, actor
                )
                await _say(session, row, "schedule.paused", now, actor, detail=_why(reason))
            return schedule_of(row) if row else None

    async def resume(self, schedule_id: str, *, actor: str) -> Schedule | None:
        """Go on from now: what came due meanwhile is recorded as missed and never fires.

        Raises InvalidSchedule where it cannot be read, as when its time zone is not known here.
        """
        async with self.database.session() as session:
            row = await _locked(session, schedule_id)
            if row is not None and row.paused_at is not None:
                check_timezone(row.timezone)
                now = await _now(session)
                await _begin_at(session, row, now, actor, "the schedule was paused")
                row.paused_at, row.updated_at = None, now
                await _say(session, row, "schedule.resumed", now, actor)
            return schedule_of(row) if row else None

    async def ticks(
        self, schedule_id: str, *, limit: int, before: datetime | None = None
    ) -> list[Tick]:
        """What became of its ticks, the latest first, those earlier than `before`."""
        query = select(ScheduleTickRow).where(ScheduleTickRow.schedule_id == schedule_id)
        if before is not None:
            query = query.where(ScheduleTickRow.fire_at < before)
        async with self.database.session() as session:
            rows = await session.scalars(
                query.order_by(ScheduleTickRow.fire_at.desc()).limit(limit)
            )
            return [Tick.of(row) for row in rows]


def default_name(agent: str, crontab: Crontab) -> str:
    """The same for the same declaration: "report:0 6 * * *", "report:0 6 * * * Asia/Riyadh"."""
    zone = "" if crontab.timezone == "UTC" else f" {crontab.timezone}"
    return f"{agent}:{' '.join(crontab.expression.split())}{zone}"


def _by_name(declared: Iterable[tuple[str, Crontab]]) -> dict[str, tuple[str, Crontab]]:
    wanted: dict[str, tuple[str, Crontab]] = {}
    for agent, crontab in declared:
        name = crontab.name or default_name(agent, crontab)
        if name in wanted:
            raise InvalidSchedule(
                f"two schedules are named {name!r}, of agents {wanted[name][0]!r} and {agent!r};"
                " give one of them another name="
            )
        wanted[name] = agent, crontab
    return wanted


async def _now(session: AsyncSession) -> datetime:
    # Not the transaction's start: it may have waited for a lock that a scheduler held.
    found: datetime = (await session.execute(select(func.clock_timestamp()))).scalar_one()
    return found


async def _locked(session: AsyncSession, schedule_id: str) -> ScheduleRow | None:
    row = await session.get(ScheduleRow, schedule_id, with_for_update=True)
    return row if row and row.deleted_at is None else None


async def _insert(
    session: AsyncSession,
    now: datetime,
    *,
    name: str,
    agent: str,
    crontab: Crontab,
    origin: str,
    actor: str,
) -> ScheduleRow:
    row = ScheduleRow(
        id=new_id(), name=name, origin=origin, revision=1, created_at=now, updated_at=now,
        decided_until=now, next_tick_at=crontab.next_tick(now), last_task_id=None,
        paused_at=None, deleted_at=None, **_definition_of(agent, crontab),
    )  # fmt: skip
    session.add(row)
    await _flush_name(session, name)
    await _say(session, row, "schedule.created", now, actor, after=_definition(row))
    return row


async def _revise(
    session: AsyncSession,
    row: ScheduleRow,
    now: datetime,
    *,
    agent: str,
    crontab: Crontab,
    actor: str,
    name: str | None = None,
) -> None:
    before = _definition(row)
    wanted = {"name": name or row.name, **_definition_of(agent, crontab)}
    if wanted == before:
        return
    await _begin_at(session, row, now, actor, "the schedule was changed before it was decided")
    for column, value in wanted.items():
        setattr(row, column, value)
    row.next_tick_at = crontab.next_tick(now)
    row.revision += 1
    row.updated_at = now
    await _flush_name(session, row.name)
    await _say(session, row, "schedule.updated", now, actor, before=before, after=wanted)


async def _remove(session: AsyncSession, row: ScheduleRow, now: datetime, actor: str) -> None:
    before = _definition(row)
    await _begin_at(session, row, now, actor, "the schedule was deleted before it was decided")
    row.deleted_at = row.updated_at = now
    # A deleted schedule gives its name free and keeps its ticks.
    row.name = f"{row.name} (deleted {row.id})"
    await session.flush()
    await _say(session, row, "schedule.deleted", now, actor, before=before)


async def _begin_at(
    session: AsyncSession, row: ScheduleRow, now: datetime, actor: str, reason: str
) -> None:
    """Leave the past: what is undecided of it is missed, and the next look begins now."""
    connection = await session.connection()
    reason = "the schedule was paused" if row.paused_at is not None else reason
    schedule = schedule_of(row)
    await drop_waiting(connection, row.id, reason, now, actor)
    row.decided_until = max(row.decided_until, now)
    # A line or zone that this machine cannot read has no ticks to settle; it must be possible to
    # change or delete it all the same.
    with suppress(InvalidSchedule):
        row.next_tick_at = schedule.crontab.next_tick(row.decided_until)
        await settle_missed(connection, schedule, until=now, reason=reason, actor=actor)


async def _flush_name(session: AsyncSession, name: str) -> None:
    try:
        await session.flush()
    except IntegrityError as error:
        raise InvalidSchedule(f"a schedule named {name!r} exists; give another name") from error


def _refuse_declared(row: ScheduleRow, verb: str) -> None:
    if row.origin == "agent":
        raise InvalidSchedule(
            f"schedule {row.name!r} is declared on agent {row.agent!r}: it is {verb} there, in"
            " `schedules`; what can be done here is to pause it"
        )


def _definition_of(agent: str, crontab: Crontab) -> dict[str, Any]:
    return {
        "agent": agent,
        "expression": crontab.expression,
        "timezone": crontab.timezone,
        "input": from_json(json_text(crontab.input)),
        "catchup": crontab.catchup.value,
        "catchup_window": int(crontab.catchup_window / timedelta(seconds=1)),
        "overlap": crontab.overlap.value,
    }


_DEFINITION: Sequence[str] = (
    "name", "agent", "expression", "timezone", "input", "catchup", "catchup_window", "overlap",
)  # fmt: skip


def _definition(row: ScheduleRow) -> dict[str, Any]:
    return {column: getattr(row, column) for column in _DEFINITION}


def _why(reason: str | None) -> dict[str, Any]:
    return {"reason": reason} if reason else {}


async def _say(
    session: AsyncSession,
    row: ScheduleRow,
    action: str,
    now: datetime,
    actor: str,
    *,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
    detail: dict[str, Any] | None = None,
) -> None:
    entry = AuditEntry(
        id=new_id(), at=now, action=action, actor=actor, object_type="schedule",
        object_id=row.id, before=before, after=after,
        detail={"agent": row.agent, "revision": row.revision, **(detail or {})},
    )  # fmt: skip
    await write_audit(await session.connection(), [entry])
