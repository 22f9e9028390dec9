"""Accepts tasks: one statement writes the rows and what the audit says of them, for one or many.

Whoever makes a task durable comes through here, in a transaction of its own (`accept`) or, for
single submissions that share a commit, without one (`accept_new`).
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import asyncpg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.db.bulk import joined, parameters, picked, texts, unnested
from orchestrator.db.recording import TASK_COLUMNS
from orchestrator.db.session import Database, translated
from orchestrator.errors import TaskIdConflict
from orchestrator.record import TaskRecord, accepted
from orchestrator.task import Task, TaskId, new_id

# Of a task that has only been accepted, the others are not known yet.
_COLUMNS = {
    name: kind
    for name, kind in TASK_COLUMNS.items()
    if name not in {"published_at", "stream", "entry_id", "worker", "started_at", "finished_at"}
}
_GIVEN = {**_COLUMNS, "audit_id": "uuid", "actor": "text"}
# Milliseconds for which single submissions wait together for a row that one of them needs. Below
# Postgres' deadlock_timeout of a second, so that the group is never part of a deadlock.
PATIENCE = 200
# Tasks in one statement. Of `map` over gigabytes each column would else be one value of that size,
# which Postgres takes for a broken connection.
STATEMENT = 500


def _statement(place: Callable[[int], str], *, provided: str = "") -> str:
    """Insert what is new, say so in the audit, and return its ids: all of it or nothing.

    The audit's row is made of the task's own, as `record.state_changed` would make it: three more
    JSON texts a task would be a third of what accepting costs this process (measured).
    """
    names = ", ".join(f'"{name}"' for name in _COLUMNS)
    # Of a process whose clock is ahead: the reconciler leaves a row of a time to come alone.
    values = names.replace('"created_at"', 'least("created_at", now())')
    # Names are this package's own constants, values are bound.
    return (
        f"WITH given AS MATERIALIZED (SELECT {picked(_GIVEN)}"  # noqa: S608
        f" FROM {unnested(tuple(_GIVEN), place)}),"
        f" fresh AS (INSERT INTO tasks ({names}) SELECT {values} FROM given {provided}"
        " ON CONFLICT (id) DO NOTHING RETURNING id, agent, state, attempt, created_at),"
        " said AS (INSERT INTO audit_events"
        " (id, at, action, actor, object_type, object_id, after, detail)"
        " SELECT given.audit_id, fresh.created_at, 'task.' || fresh.state, given.actor,"
        " 'task', fresh.id::text,"
        " jsonb_build_object('state', fresh.state, 'attempt', fresh.attempt),"
        " jsonb_build_object('agent', fresh.agent)"
        " FROM fresh JOIN given ON given.id = fresh.id)"
        " SELECT id::text FROM fresh"
    )


_ACCEPT = text(_statement(lambda i: f":p{i}"))
_ACCEPT_NEW = _statement(
    lambda i: f"${i + 1}",
    # A condition without a row in it is asked once, before the first row; the setting ends with
    # the statement.
    provided=f"WHERE (SELECT set_config('lock_timeout', '{PATIENCE}', true)) <> ''",
)
_DIGESTS = text("SELECT id::text, digest FROM tasks WHERE id = ANY(CAST(:ids AS uuid[]))")


async def accept(
    connection: AsyncConnection, tasks: Sequence[Task], *, actor: str
) -> dict[TaskId, bool]:
    """Insert a row for each task with its audit entry; True where it is new.

    Raises TaskIdConflict when one of them exists with another agent or input: the caller then
    rolls back, so that of many all or none are accepted.
    """
    if not tasks:
        return {}
    now = datetime.now(UTC)
    records: dict[TaskId, TaskRecord] = {}
    for task in tasks:
        record = accepted(task, digest=task.digest, now=now)
        if records.setdefault(record.id, record).digest != record.digest:
            raise TaskIdConflict(record.id)
    # By id, as the recorder locks them: two of us then wait for each other and never deadlock.
    ordered = sorted(records)
    fresh: set[TaskId] = set()
    async with translated():
        for start in range(0, len(ordered), STATEMENT):
            part = [records[task_id] for task_id in ordered[start : start + STATEMENT]]
            given = parameters(_given([(record, actor) for record in part]))
            fresh.update(row[0] for row in await connection.execute(_ACCEPT, given))
            await _check_same(connection, [each for each in part if each.id not in fresh])
    return {task_id: task_id in fresh for task_id in records}


async def accept_new(database: Database, asked: Sequence[tuple[Task, str]]) -> set[TaskId]:
    """Commit rows for these tasks and actors in one statement; the ids of those that are new.

    Nobody is refused here: what is not among them (a duplicate, a conflict, an id that is in
    somebody's open transaction) is for `accept` to answer, alone. Raises Unavailable, and asyncpg's
    own error where Postgres will not have one of them: then none of them is accepted.
    """
    now = datetime.now(UTC)
    rows: dict[TaskId, tuple[TaskRecord, str]] = {}
    for task, actor in asked:
        if task.task_id not in rows:
            rows[task.task_id] = accepted(task, digest=task.digest, now=now), actor
    # SQLAlchemy's own work for a statement and its transaction would be more than Postgres' for one
    # row (1.1 ms where the driver takes 0.6, measured).
    async with database.driver() as driver:
        try:
            ordered = [rows[task_id] for task_id in sorted(rows)]  # as in `accept`
            return {row[0] for row in await driver.fetch(_ACCEPT_NEW, *_given(ordered))}
        except asyncpg.LockNotAvailableError:
            return set()


def _given(rows: Sequence[tuple[TaskRecord, str]]) -> list[str]:
    """The parameters of the statement for these rows and who asked for each."""
    return [
        *texts([record for record, _ in rows], _COLUMNS),
        joined([new_id() for _ in rows], "uuid"),
        joined([actor for _, actor in rows], "text"),
    ]


async def _check_same(connection: AsyncConnection, records: Sequence[TaskRecord]) -> None:
    if not records:
        return
    digests = {record.id: record.digest for record in records}
    for task_id, digest in await connection.execute(_DIGESTS, {"ids": list(digests)}):
        if digest is not None and digest != digests[task_id]:
            raise TaskIdConflict(task_id)
