"""Schedules and their ticks in the model of Postgres: what db/ticks.py asks of it in SQL.

`ticks.decide` itself is the real one. Rows due are handed to several schedulers at once in some
seeds, as if nothing were locked: the ticks' key alone must keep them apart.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from orchestrator.cron import Overlap, TickOutcome
from orchestrator.db.ticks import Clock, Due, Schedule, Tick
from orchestrator.record import AuditEntry
from tests.simulation.postgres_model import Postgres, Rows, Transaction, is_open


class ModelScheduleStore:
    """As much of `db.schedules.ScheduleStore` as a scheduler uses whose agents declare nothing."""

    def __init__(self, database: Postgres) -> None:
        self.database = database

    async def sync_declared(self, *_: Any, **__: Any) -> list[Schedule]:
        return []


async def clock(tx: Transaction) -> Clock:
    """As `ticks.clock`."""
    await tx.statement()
    return Clock(tx.now, tx.server.now())


async def next_tick(tx: Transaction) -> datetime | None:
    """As `ticks.next_tick`."""
    await tx.statement()
    found = (each.next_tick_at for each in tx.server.rows.schedules.values())
    return min((each for each in found if each > tx.now), default=None)


async def due(tx: Transaction) -> list[Due]:
    """As `ticks.due`."""
    await tx.statement()
    rows = tx.server.rows
    found = [
        each.id for each in rows.schedules.values()
        if each.next_tick_at <= tx.now or _may_release(rows, each)
    ]  # fmt: skip
    if tx.server.locks_schedules:
        had = await tx.lock([("schedule", each) for each in found], skip=True)
        found = [each for _, each in had]
    await tx.statement()
    return [
        Due(rows.schedules[each], _previous_open(rows, rows.schedules[each]),
            _waiting(rows, rows.schedules[each]))
        for each in sorted(found)
    ]  # fmt: skip


def _may_release(rows: Rows, schedule: Schedule) -> bool:
    return _waiting(rows, schedule) is not None and not _previous_open(rows, schedule)


def _previous_open(rows: Rows, schedule: Schedule) -> bool:
    last = rows.tasks.get(schedule.last_task_id or "")
    return last is not None and is_open(last)


def _waiting(rows: Rows, schedule: Schedule) -> datetime | None:
    if schedule.overlap is not Overlap.QUEUE:
        return None
    last = rows.tasks.get(schedule.last_task_id or "")
    since = datetime.fromisoformat((last.metadata or {})["fire_at"]) if last else None
    return min(
        (
            tick.fire_at for tick in rows.ticks.values()
            if tick.schedule_id == schedule.id and tick.outcome is TickOutcome.WAITING
            and (since is None or tick.fire_at > since)
        ),
        default=None,
    )  # fmt: skip


class InsertTicks:
    """As `ticks._INSERT_TICKS`: ON CONFLICT DO NOTHING, once whoever is before us has ended."""

    @staticmethod
    async def run(tx: Transaction, ticks: Sequence[Tick]) -> list[tuple[str, datetime]]:
        await tx.statement()
        won = []
        for tick in ticks:
            key = (tick.schedule_id, tick.fire_at)
            await tx.lock([("tick", *key)])
            if key not in tx.server.rows.ticks:
                won.append(key)
                tx.also.append(_inserting(key, tick))
        return won


def _inserting(key: tuple[str, datetime], tick: Tick) -> Callable[[Rows], None]:
    return lambda rows: rows.ticks.update({key: tick})


async def release(tx: Transaction, tick: Tick) -> bool:
    """As `ticks._release`."""
    await tx.statement()
    key = (tick.schedule_id, tick.fire_at)
    await tx.lock([("tick", *key)])
    standing = tx.server.rows.ticks.get(key)
    if standing is None or standing.outcome is not TickOutcome.WAITING:
        return False
    tx.also.append(_inserting(key, tick))
    return True


async def write_audit(tx: Transaction, entries: Sequence[AuditEntry]) -> int:
    """As `recording.write_audit`."""
    await tx.statement()
    tx.also.append(lambda rows: rows.audit.update({each.id: each for each in entries}))
    return len(entries)


async def advance(tx: Transaction, values: dict[str, list[Any]]) -> None:
    """As `ticks._ADVANCE`."""
    await tx.statement()
    await tx.lock([("schedule", each) for each in values["ids"]])
    for row in zip(*(values[name] for name in ("ids", "until", "next", "last")), strict=True):
        tx.also.append(_advancing(*row))


def _advancing(
    schedule_id: str, until: datetime, following: datetime, last: str | None
) -> Callable[[Rows], None]:
    def change(rows: Rows) -> None:
        standing = rows.schedules[schedule_id]
        rows.schedules[schedule_id] = replace(
            standing,
            decided_until=max(standing.decided_until, until),
            next_tick_at=max(standing.next_tick_at, following),
            last_task_id=last or standing.last_task_id,
        )

    return change
