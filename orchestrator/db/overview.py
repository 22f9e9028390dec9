"""What the first page says: how the last hour went, what ended last, and what needs somebody.

Each query ends at a bound: the newest thousand of what is wrong say enough.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text

from orchestrator.db.session import Database

MOST_LOOKED_AT = 1000  # rows behind one list of what needs attention

# Minute by minute, from the results; a task that ended twice is there once.
_ENDED = text(
    "SELECT extract(epoch FROM date_trunc('minute', recorded_at))::bigint AS minute, state,"
    " count(*) FROM results WHERE recorded_at >= :since GROUP BY 1, 2 ORDER BY 1"
)
_LATEST = text(
    "SELECT r.task_id::text AS task_id, r.agent, r.state, r.recorded_at, r.error->>'type' AS error,"
    " extract(epoch FROM r.finished_at - r.started_at)::float AS seconds"
    " FROM results AS r ORDER BY r.recorded_at DESC LIMIT :most"
)
_FAILED = text(
    "SELECT agent, r.error->>'type' AS cause, count(*) AS count, max(finished_at) AS latest,"
    " min(finished_at) AS first, (array_agg(left(r.error->>'message', 200)))[1] AS example"
    " FROM (SELECT id, agent, finished_at FROM tasks WHERE state = 'failed'"
    "   AND created_at >= :since ORDER BY created_at DESC, id DESC LIMIT :most) AS newest"
    " JOIN LATERAL (SELECT error FROM results WHERE task_id = newest.id) AS r ON true"
    " GROUP BY 1, 2 ORDER BY 3 DESC LIMIT 8"
)
_LETTERS = text(
    "SELECT reason AS cause, count(*) AS count, max(created_at) AS latest,"
    " (array_agg(left(detail, 200)))[1] AS example"
    " FROM (SELECT reason, detail, created_at FROM dead_letters WHERE closed_at IS NULL"
    "   ORDER BY created_at DESC, id DESC LIMIT :most) AS newest GROUP BY 1 ORDER BY 2 DESC LIMIT 8"
)
_ALERTS = text(
    "SELECT severity AS cause, count(*) AS count, max(received_at) AS latest,"
    " (array_agg(left(signature, 200) ORDER BY received_at DESC))[1] AS example"
    " FROM (SELECT severity, signature, received_at FROM alerts WHERE acknowledged_at IS NULL"
    "   AND severity = ANY('{critical,high}') AND received_at >= :since"
    "   ORDER BY received_at DESC, id DESC LIMIT :most) AS newest GROUP BY 1"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How many tasks came to this end within this minute."""

    minute: int  # seconds since the epoch
    state: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Latest:
    """A task that ended just now."""

    task_id: str
    agent: str
    state: str
    recorded_at: datetime
    error: str | None  # its type
    seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Some things that went wrong in one way."""

    cause: str
    count: int
    latest: datetime | None
    example: str | None
    agent: str | None = None


async def ended(database: Database, *, since: datetime) -> list[Ended]:
    """The ends of tasks since then, by minute and state. Raises Unavailable, TookTooLong."""
    async with database.transaction() as connection:
        found = await connection.execute(_ENDED, {"since": since})
        return [Ended(minute=int(at), state=state, count=int(n)) for at, state, n in found]


async def latest(database: Database, *, most: int = 12) -> list[Latest]:
    """What ended last, the newest first."""
    async with database.transaction() as connection:
        found = await connection.execute(_LATEST, {"most": most})
        return [Latest(**row) for row in found.mappings()]


async def failed(database: Database, *, since: datetime) -> list[Group]:
    """Tasks born since then that failed, by agent and error."""
    return await _groups(database, _FAILED, {"since": since})


async def dead_letters(database: Database) -> list[Group]:
    """Dead letters that nobody has dealt with, by reason."""
    return await _groups(database, _LETTERS, {})


async def serious_alerts(database: Database, *, since: datetime) -> list[Group]:
    """Critical and high alerts since then that nobody has acknowledged."""
    return await _groups(database, _ALERTS, {"since": since})


async def _groups(database: Database, asked: Any, values: dict[str, Any]) -> list[Group]:
    async with database.transaction() as connection:
        found = await connection.execute(asked, {**values, "most": MOST_LOOKED_AT})
        return [
            Group(
                cause=row["cause"] or "unknown",
                count=row["count"],
                latest=row["latest"],
                example=row["example"],
                agent=row.get("agent"),
            )
            for row in found.mappings()
        ]
