"""Writes what the fold of a batch came to (`orchestrator.fold`), in the caller's transaction."""

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.db.bulk import Insert, run_together
from orchestrator.db.session import Database, unrecordable
from orchestrator.db.spending import HAVE_SPENT, reckon, write_calls
from orchestrator.fold import fold
from orchestrator.record import (
    AuditEntry,
    HeardEvent,
    SeenTask,
    TaskRecord,
    Writes,
)
from orchestrator.redaction import redacted
from orchestrator.task import TaskId, TaskState

TASK_COLUMNS = {
    "id": "uuid", "agent": "text", "state": "text", "progress": "int", "created_at": "timestamptz",
    "attempt": "int", "crashes": "int", "digest": "text", "run_at": "timestamptz",
    "published_at": "timestamptz", "stream": "text", "entry_id": "text", "worker": "text",
    "started_at": "timestamptz", "finished_at": "timestamptz", "queue": "text", "priority": "text",
    "tenant": "text", "input": "jsonb", "metadata": "jsonb", "idempotency_key": "text",
    "parent_id": "uuid", "root_id": "uuid", "expires_at": "timestamptz", "budget": "jsonb",
    "traceparent": "text",
}  # fmt: skip
# What a later report changes; where the last message was seen; and what the message asked for,
# which is filled in once, as an event can be recorded before it.
PROGRESS = (
    "state", "progress", "attempt", "crashes", "run_at", "worker", "started_at", "finished_at",
)  # fmt: skip
SEEN = ("published_at", "stream", "entry_id")
ASKED_FOR = (
    "digest", "queue", "priority", "tenant", "input", "metadata", "idempotency_key", "parent_id",
    "root_id", "expires_at", "budget", "created_at",
)  # fmt: skip
_LOADED = ("id", "agent", "created_at", "digest", *PROGRESS, *SEEN)

# Column by column, because another recorder may have made the row since we looked for it, from the
# other half of its messages: nothing goes back, and nothing that is known is lost.
_LATER = (
    "excluded.progress > tasks.progress"
    " OR (excluded.progress = tasks.progress AND excluded.state = tasks.state)"
)
UPSERT_TASKS = Insert(
    "tasks",
    TASK_COLUMNS,
    "ON CONFLICT (id) DO UPDATE SET "
    + ", ".join(
        f"{name} = CASE WHEN {_LATER} THEN excluded.{name} ELSE tasks.{name} END"
        for name in PROGRESS
    )
    + ", "
    + ", ".join(f"{name} = coalesce(excluded.{name}, tasks.{name})" for name in SEEN)
    # The span that sent it first: a task that was accepted before a span could be told of has none.
    + ", traceparent = coalesce(tasks.traceparent, excluded.traceparent), "
    + ", ".join(
        f'"{name}" = CASE WHEN tasks.digest IS NULL THEN excluded."{name}" ELSE tasks."{name}" END'
        for name in ASKED_FOR
    )
    # Who locked no row here has made a new one.
    + ", updated_at = now() RETURNING xmax = 0 AS made",
)
INSERT_RESULTS = Insert(
    "results",
    {
        "task_id": "uuid", "agent": "text", "state": "text", "attempt": "int", "output": "jsonb",
        "error": "jsonb", "worker": "text", "started_at": "timestamptz",
        "finished_at": "timestamptz",
    },
    "ON CONFLICT (task_id) DO NOTHING",
)  # fmt: skip
UPSERT_ATTEMPTS = Insert(
    "attempts",
    {
        "task_id": "uuid", "attempt": "int", "state": "text", "error": "jsonb", "worker": "text",
        "started_at": "timestamptz", "finished_at": "timestamptz",
    },
    # Only an attempt that is still open is overwritten: its end stays.
    "ON CONFLICT (task_id, attempt) DO UPDATE SET state = excluded.state, error = excluded.error,"
    " worker = coalesce(excluded.worker, attempts.worker),"
    " started_at = coalesce(attempts.started_at, excluded.started_at),"
    " finished_at = excluded.finished_at WHERE attempts.state = 'running'",
)  # fmt: skip
INSERT_DEAD_LETTERS = Insert(
    "dead_letters",
    {
        "id": "uuid", "stream": "text", "entry_id": "text", "task_id": "uuid", "agent": "text",
        "reason": "text", "detail": "text", "fields": "jsonb", "created_at": "timestamptz",
    },
    "ON CONFLICT DO NOTHING",
)  # fmt: skip
INSERT_AUDIT = Insert(
    "audit_events",
    {
        "id": "uuid", "at": "timestamptz", "action": "text", "actor": "text",
        "object_type": "text", "object_id": "text", "before": "jsonb", "after": "jsonb",
        "detail": "jsonb", "producer": "text", "sequence": "bigint",
    },
    # An act that was read again is no news; another act under a number that is taken is refused.
    "ON CONFLICT (id) DO NOTHING RETURNING id::text",
)  # fmt: skip


_said = attrgetter("before", "after", "detail")
_MADE = "(SELECT count(*) FROM w0 WHERE made)"


async def record(
    database: Database, messages: Sequence[SeenTask | HeardEvent], *, also: Writes
) -> None:
    """Fold messages into the record in one transaction, with what `also` brings.

    Raises Unavailable (nothing is written, try again), Unrecordable (one of them never will be).
    """
    task_ids = {each.task_id for each in messages}
    try:
        # Again where another recorder made one of the rows after we had looked for it: the data
        # would come out right (UPSERT_TASKS), but the audit would tell of two beginnings.
        while not await _record(database, messages, also, sorted(task_ids)):
            pass
    except DBAPIError as error:
        raise unrecordable(error) from error


async def _record(
    database: Database,
    messages: Sequence[SeenTask | HeardEvent],
    also: Writes,
    task_ids: Sequence[TaskId],
) -> bool:
    """One try; False, and nothing written, where a row is there that was not a moment ago."""
    async with database.transaction() as connection:
        known = await lock_known(connection, task_ids) if task_ids else {}
        found = set(known)
        writes = fold(known, messages)
        writes.dead_letters += also.dead_letters
        writes.audit += also.audit
        made = await write(connection, writes)
        if made < len(writes.tasks.keys() - found):
            await connection.rollback()
            return False
    return True


async def lock_known(
    connection: AsyncConnection, task_ids: Sequence[TaskId]
) -> dict[TaskId, TaskRecord]:
    """The rows of these tasks that exist, locked in one order for all, so that none deadlock."""
    columns = ", ".join("id::text AS id" if name == "id" else name for name in _LOADED)
    found = await connection.execute(
        text(
            # One text, as the driver checks each value of an array.
            f"SELECT {columns} FROM tasks"  # noqa: S608
            " WHERE id = ANY(string_to_array(CAST(:ids AS text), ',')::uuid[])"
            " ORDER BY id FOR UPDATE"
        ),
        {"ids": ",".join(task_ids)},
    )
    return {row.id: _known(row._mapping) for row in found}  # noqa: SLF001 - SQLAlchemy's public name


async def write(connection: AsyncConnection, writes: Writes) -> int:
    """Write all of it; the caller commits. How many of the tasks had no row before."""
    # By id, as they were locked: two recorders then wait for each other and never deadlock.
    tasks = sorted(writes.tasks.values(), key=lambda record: record.id)
    spenders = writes.spenders
    # Nearly always nobody has: the question is part of the statement, and costs no other one.
    asks = bool(spenders) and not writes.calls
    found = await run_together(
        connection,
        [
            (UPSERT_TASKS, tasks),
            (INSERT_RESULTS, list(writes.results.values())),
            (UPSERT_ATTEMPTS, list(writes.attempts.values())),
            (INSERT_DEAD_LETTERS, writes.dead_letters),
            (INSERT_AUDIT, _without_secrets(writes.audit)),
        ],
        asked=f"{_MADE if tasks else '0'} AS made, {HAVE_SPENT if asks else 'false'} AS spent",
        about={"spenders": ",".join(spenders)} if asks else None,
    )
    if writes.calls:
        await write_calls(connection, list(writes.calls))
    if writes.calls or (found is not None and found.spent):
        await reckon(connection, spenders)
    return int(found.made) if found is not None else 0


async def write_audit(connection: AsyncConnection, entries: Sequence[AuditEntry]) -> int:
    """Write audit entries; how many were new."""
    return len(await INSERT_AUDIT.run(connection, _without_secrets(entries)))


def _without_secrets(entries: Sequence[AuditEntry]) -> Sequence[AuditEntry]:
    """What the audit's rows say. The other door to it, acceptance's, says an agent and a state."""
    # Each object once: two rows of every task come by here, and they share most of theirs.
    said = {id(each): each for entry in entries for each in _said(entry)}
    clean = {key: kept for key, each in said.items() if (kept := redacted(each)) is not each}
    return [_cleaned(entry, clean) for entry in entries] if clean else entries


def _cleaned(entry: AuditEntry, clean: Mapping[int, Any]) -> AuditEntry:
    before, after, detail = (clean.get(id(each), each) for each in _said(entry))
    return entry._replace(before=before, after=after, detail=detail)


def _known(row: Any) -> TaskRecord:
    return TaskRecord(**{**row, "state": TaskState(row["state"])})
