"""Counts for /metrics: tasks by state, the oldest that waits, open dead letters, usage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import text

from orchestrator.db.columns import OPEN, UNHAPPY
from orchestrator.db.session import Database
from orchestrator.db.usage import Group, totals

# Both halves use a partial index. What succeeded is not counted: that would read the whole table
# at every scrape.
_BY_STATE = text(
    f"SELECT state, count(*) FROM tasks WHERE {OPEN} GROUP BY state"  # noqa: S608 - constants
    f" UNION ALL SELECT state, count(*) FROM tasks WHERE {UNHAPPY} GROUP BY state"
)
# Waiting: due and not begun. A countdown that has not elapsed is no wait.
_OLDEST = text(
    "SELECT queue, extract(epoch FROM now() - min(coalesce(run_at, created_at))) FROM tasks"  # noqa: S608 - constants
    f" WHERE {OPEN} AND state IN ('scheduled', 'queued', 'retrying')"
    " AND coalesce(run_at, created_at) <= now() GROUP BY queue"
)
# Accepted, and the recorder has seen no message of it: on its way, or waiting for room in Redis.
_UNPUBLISHED = text(
    f"SELECT count(*) FROM tasks WHERE {OPEN} AND published_at IS NULL"  # noqa: S608 - constants
)
_LETTERS = text("SELECT count(*) FROM dead_letters WHERE closed_at IS NULL")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordStatistics:
    """What the record says of the system's condition at this moment."""

    tasks: Mapping[str, int]  # state -> tasks; every state but `succeeded`
    oldest_waiting: Mapping[str, float]  # queue -> seconds, of the queues where a task waits
    unpublished: int
    dead_letters_open: int
    spent: Sequence[Group] = ()  # by agent and model, of all time


async def read(database: Database) -> RecordStatistics:
    """A few short queries. Raises Unavailable."""
    async with database.transaction() as connection:
        tasks = {state: int(count) for state, count in await connection.execute(_BY_STATE)}
        oldest = {queue: float(age) for queue, age in await connection.execute(_OLDEST)}
        unpublished = await connection.scalar(_UNPUBLISHED)
        letters = await connection.scalar(_LETTERS)
    return RecordStatistics(
        tasks=tasks, oldest_waiting=oldest, unpublished=int(unpublished or 0),
        dead_letters_open=int(letters or 0), spent=await totals(database),
    )  # fmt: skip
