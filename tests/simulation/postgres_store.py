"""What submitters and the reconciler ask of the model of Postgres (db.tasks, db.reconciling)."""

import copy
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

from orchestrator.db.reconciling import Cursor, as_open
from orchestrator.errors import TaskIdConflict, TaskNotFound
from orchestrator.event import EventKind, TaskEvent
from orchestrator.record import AuditEntry, OpenTask, TaskRecord, accepted, state_changed
from orchestrator.task import Task, TaskId, TaskState
from tests.simulation.postgres_model import Postgres, Rows, Transaction, is_open, old_enough


async def accept(tx: Transaction, tasks: Sequence[Task], *, actor: str) -> dict[TaskId, bool]:
    """As `accepting.accept`. Raises TaskIdConflict."""
    await tx.statement()
    now, rows = datetime.now(UTC), tx.server.rows
    fresh: dict[TaskId, bool] = {}
    for task in tasks:
        record = accepted(task, digest=task.digest, now=now)
        record.created_at = min(record.created_at, tx.now)
        standing = rows.tasks.get(task.task_id)
        if standing is not None and standing.digest not in (None, record.digest):
            raise TaskIdConflict(task.task_id)
        fresh[task.task_id] = standing is None
        if standing is None:
            said = state_changed(record, before=None, at=now, actor=actor)
            tx.also.append(_inserting(record, said))
    return fresh


def _inserting(record: TaskRecord, said: AuditEntry) -> Callable[[Rows], None]:
    def insert(rows: Rows) -> None:
        if record.id not in rows.tasks:  # ON CONFLICT DO NOTHING
            rows.tasks[record.id] = copy.copy(record)
            rows.audit[said.id] = said

    return insert


class ModelStore:
    """As `db.tasks.TaskStore`."""

    def __init__(self, server: Postgres) -> None:
        self._server = server

    async def accept(self, tasks: Sequence[Task], *, actor: str) -> dict[TaskId, bool]:
        async with self._server.transaction() as tx:
            return await accept(tx, tasks, actor=actor)

    async def accept_new(self, asked: Sequence[tuple[Task, str]]) -> Collection[TaskId]:
        async with self._server.transaction() as tx:
            await tx.statement()
            new = [
                (task, actor) for task, actor in asked
                if task.task_id not in self._server.rows.tasks
            ]  # fmt: skip
            for task, actor in new:
                await accept(tx, [task], actor=actor)
        return {task.task_id for task, _ in new}

    async def state(self, task_id: TaskId) -> TaskState | None:
        async with self._server.transaction():
            row = self._server.rows.tasks.get(task_id)
        return TaskState(row.state) if row else None

    async def ended(self, task_id: TaskId) -> TaskEvent | None:
        async with self._server.transaction():
            row = self._server.rows.results.get(task_id)
        if row is None:
            return None
        return TaskEvent(
            task_id=task_id, agent=row.agent, event=EventKind(row.state), attempt=row.attempt,
            at=row.finished_at or self._server.now(), output=row.output, error=row.error,
        )  # fmt: skip

    async def request_cancel(self, task_id: TaskId, *, actor: str) -> tuple[TaskState, str, int]:
        now = datetime.now(UTC)
        async with self._server.transaction() as tx:
            await tx.lock([task_id])
            row = self._server.rows.tasks.get(task_id)
            if row is None:
                raise TaskNotFound(task_id)
            if is_open(row):
                tx.also.append(lambda rows: rows.cancels.setdefault(task_id, (now, actor)) and None)
            return TaskState(row.state), row.agent, row.attempt


class ModelOpenTasks:
    """As `db.reconciling.OpenTasks`."""

    def __init__(self, server: Postgres) -> None:
        self._server = server

    async def page(
        self, *, after: Cursor | None, older_than: timedelta, limit: int
    ) -> list[OpenTask]:
        found = await self._read(
            lambda row: old_enough(row.created_at, self._server.now(), older_than)
        )
        return [e for e in found if after is None or (e.created_at, e.task_id) > after][:limit]

    async def unpublished(self, *, older_than: timedelta, limit: int) -> list[OpenTask]:
        found = await self._read(
            lambda row: (
                row.published_at is None
                and old_enough(row.created_at, self._server.now(), older_than)
            )
        )
        return found[:limit]

    async def overdue(self, *, grace: timedelta, limit: int) -> list[OpenTask]:
        now = self._server.now()

        def is_overdue(row: TaskRecord) -> bool:
            asked = self._server.rows.cancels.get(row.id)
            if asked is not None and asked[0] < now - grace:
                return True
            waits = row.state in (TaskState.QUEUED, TaskState.SCHEDULED, TaskState.RETRYING)
            return bool(waits and row.expires_at and row.expires_at < now)

        return (await self._read(is_overdue))[:limit]

    async def again(self, task_ids: Sequence[TaskId]) -> dict[TaskId, OpenTask]:
        wanted = set(task_ids)
        return {each.task_id: each for each in await self._read(lambda row: row.id in wanted)}

    async def _read(self, wanted: Callable[[TaskRecord], bool]) -> list[OpenTask]:
        async with self._server.transaction() as tx:
            await tx.statement()
            rows = self._server.rows
            found = [
                as_open(_row(row, rows)) for row in rows.tasks.values()
                if is_open(row) and wanted(row)
            ]  # fmt: skip
        return sorted(found, key=lambda each: (each.created_at, each.task_id))


def _row(record: TaskRecord, rows: Rows) -> Any:
    at, by = rows.cancels.get(record.id, (None, None))
    values = {name: getattr(record, name) for name in TaskRecord.__slots__}
    return SimpleNamespace(
        **values, meta=record.metadata, cancel_requested_at=at, cancel_requested_by=by
    )
