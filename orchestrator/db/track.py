"""How schedules and agents have done of late: what lists show beside their rows.

Each question is bounded by a number of rows for each schedule or agent, not by time: a day of one
may be ten tasks, of another a million.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import text

from orchestrator.cron import TickOutcome
from orchestrator.db.session import Database
from orchestrator.task import TaskState

MARKS = 20  # ticks of each schedule
LOOKED_AT = 1000  # tasks of each agent, the newest

_MARKS = text(
    "SELECT s.id::text AS id, k.fire_at, k.outcome, k.reason, k.task_id::text AS task_id, t.state"  # noqa: S608 - constants
    " FROM unnest(CAST(:ids AS uuid[])) AS s(id)"
    " CROSS JOIN LATERAL (SELECT * FROM schedule_ticks WHERE schedule_id = s.id"
    f" ORDER BY fire_at DESC LIMIT {MARKS}) AS k"
    " LEFT JOIN tasks AS t ON t.id = k.task_id ORDER BY s.id, k.fire_at"
)
_FIGURES = text(
    "SELECT a.name, count(*) AS tasks, count(*) FILTER (WHERE t.state = 'succeeded') AS succeeded,"  # noqa: S608 - constants
    " count(*) FILTER (WHERE t.state IN ('failed', 'expired', 'dead')) AS failed,"
    " percentile_disc(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY t.finished_at - t.started_at)"
    " FILTER (WHERE t.state = 'succeeded') AS took"
    " FROM unnest(CAST(:agents AS text[])) AS a(name)"
    " CROSS JOIN LATERAL (SELECT state, started_at, finished_at FROM tasks"
    " WHERE agent = a.name AND created_at >= :since"
    f" ORDER BY created_at DESC, id DESC LIMIT {LOOKED_AT}) AS t GROUP BY a.name"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What became of one tick, and how the task that it fired stands."""

    fire_at: datetime
    outcome: TickOutcome
    reason: str | None
    task_id: str | None
    state: TaskState | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """An agent's newest tasks; `took` of those that succeeded, half of them and 95 of 100."""

    tasks: int
    succeeded: int
    failed: int  # failed, expired or dead
    took: tuple[timedelta, timedelta] | None

    @property
    def share(self) -> float | None:
        """Succeeded of those that ended by themselves; None where none has."""
        ended = self.succeeded + self.failed
        return self.succeeded / ended if ended else None


NO_FIGURES = Figures(tasks=0, succeeded=0, failed=0, took=None)


async def marks(database: Database, schedule_ids: Collection[str]) -> Mapping[str, list[Mark]]:
    """Schedule id -> its last ticks, the oldest of them first. Raises Unavailable."""
    found: dict[str, list[Mark]] = {each: [] for each in schedule_ids}
    if not found:
        return found
    async with database.transaction() as connection:
        rows = await connection.execute(_MARKS, {"ids": list(found)})
        for row in rows:
            found[row.id].append(
                Mark(
                    fire_at=row.fire_at,
                    outcome=TickOutcome(row.outcome),
                    reason=row.reason,
                    task_id=row.task_id,
                    state=TaskState(row.state) if row.state else None,
                )
            )
    return found


async def figures(
    database: Database, agents: Collection[str], *, since: datetime
) -> Mapping[str, Figures]:
    """Agent -> how it did since then. Raises Unavailable, TookTooLong."""
    found = dict.fromkeys(agents, NO_FIGURES)
    async with database.transaction() as connection:
        rows = await connection.execute(_FIGURES, {"agents": list(found), "since": since})
        for row in rows:
            took = tuple(row.took) if row.took and row.took[0] is not None else None
            found[row.name] = Figures(
                tasks=row.tasks, succeeded=row.succeeded, failed=row.failed, took=took
            )
    return found
