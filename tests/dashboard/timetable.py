"""Schedules of the morning that `seed` makes: one declared, one busy, one paused."""

from datetime import datetime, timedelta
from typing import Any
from uuid import uuid5

from orchestrator.cron import Crontab
from orchestrator.db.models import Base, ScheduleRow, ScheduleTickRow
from orchestrator.task import NAMESPACE

TICKS = 26  # of each
# Every so many ticks one does not fire: what came of it, and why.
OTHERWISE = {
    4: ("missed", "older than the catch-up window of 600 s"),
    9: ("skipped", "the previous task has not ended"),
    5: ("missed", "older than the catch-up window of 600 s"),
}


def schedules(now: datetime, task_ids: list[str]) -> list[Base]:
    """Rows, whose fired ticks became these tasks."""
    nightly = Crontab(expression="0 6 * * *", timezone="Asia/Riyadh")
    often = Crontab(expression="*/5 * * * *", name="enrich what is new", input={"text": "new"})
    weekly = Crontab(
        expression="15 2 * * 1", timezone="Europe/Berlin", name="weekly summary",
        input={"hours": 168}, overlap="queue",
    )  # fmt: skip
    rows: list[Base] = []
    for agent, crontab, every, paused_at in (
        ("report", nightly, timedelta(days=1), None),
        ("enrich", often, timedelta(minutes=5), None),
        ("report", weekly, timedelta(days=7), now - timedelta(hours=3)),
    ):
        row = schedule(agent, crontab, now, paused_at=paused_at)
        rows.append(row)
        rows += _ticks(row, now - every / 2, every, task_ids)
    return rows


def schedule(agent: str, crontab: Crontab, now: datetime, **more: Any) -> ScheduleRow:
    """One row."""
    name = crontab.name or f"{agent}:{crontab.expression} {crontab.timezone}"
    values = {
        "id": str(uuid5(NAMESPACE, name)), "name": name, "agent": agent, "revision": 2,
        "expression": crontab.expression, "timezone": crontab.timezone,
        "input": dict(crontab.input), "catchup": crontab.catchup.value, "catchup_window": 600,
        "overlap": crontab.overlap.value, "origin": "api" if crontab.name else "agent",
        "decided_until": now, "next_tick_at": crontab.next_tick(now),
        "created_at": now - timedelta(days=90), "updated_at": now - timedelta(days=9),
    }  # fmt: skip
    return ScheduleRow(**(values | more))


def _ticks(
    row: ScheduleRow, last: datetime, every: timedelta, task_ids: list[str]
) -> list[ScheduleTickRow]:
    found = []
    for index in range(TICKS):
        outcome, reason = OTHERWISE.get(index, ("fired", None))
        found.append(
            ScheduleTickRow(
                schedule_id=row.id, fire_at=last - index * every, revision=2, outcome=outcome,
                reason=reason, decided_by="scheduler:soc-1:71:c2",
                task_id=task_ids[index % len(task_ids)] if outcome == "fired" else None,
            )
        )  # fmt: skip
    return found
