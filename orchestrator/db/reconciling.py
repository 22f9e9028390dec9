"""Which rows the reconciler looks at, and how they stand now."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Select, and_, func, or_, select, text, tuple_

from orchestrator.budget import Budget
from orchestrator.db.columns import OPEN
from orchestrator.db.models import TaskRow
from orchestrator.db.session import Database
from orchestrator.record import OpenTask
from orchestrator.task import Priority, Task, TaskId, TaskState

MADE_UP = timedelta(days=1)  # no clock is that far off

Cursor = tuple[datetime, TaskId]


class OpenTasks:
    """Reads open rows; writes nothing."""

    def __init__(self, database: Database) -> None:
        """Store."""
        self.database = database

    async def page(
        self, *, after: Cursor | None, older_than: timedelta, limit: int
    ) -> list[OpenTask]:
        """Open tasks in order of creation, from a cursor on; by Postgres' clock.

        `older_than` leaves out what may still be on its way.
        """
        query = (
            select(TaskRow)
            .where(text(OPEN), _is_old(older_than))
            .order_by(TaskRow.created_at, TaskRow.id)
            .limit(limit)
        )
        if after is not None:
            query = query.where(tuple_(TaskRow.created_at, TaskRow.id) > after)
        return await self._read(query)

    async def unpublished(self, *, older_than: timedelta, limit: int) -> list[OpenTask]:
        """Open tasks of which the recorder has not seen a message."""
        return await self._read(
            select(TaskRow)
            .where(
                text(OPEN),
                TaskRow.published_at.is_(None),
                _is_old(older_than),
            )
            .order_by(TaskRow.created_at)
            .limit(limit)
        )

    async def overdue(self, *, grace: timedelta, limit: int) -> list[OpenTask]:
        """Open tasks that were to be cancelled, or that expired before they began."""
        return await self._read(
            select(TaskRow)
            .where(
                text(OPEN),
                or_(
                    TaskRow.cancel_requested_at < func.now() - grace,
                    and_(
                        TaskRow.expires_at < func.now(),
                        TaskRow.state.in_(("queued", "scheduled", "retrying")),
                    ),
                ),
            )
            .order_by(TaskRow.created_at)
            .limit(limit)
        )

    async def again(self, task_ids: Sequence[TaskId]) -> dict[TaskId, OpenTask]:
        """These tasks as they stand now, as far as they are open."""
        rows = await self._read(select(TaskRow).where(text(OPEN), TaskRow.id.in_(task_ids)))
        return {row.task_id: row for row in rows}

    async def _read(self, query: Select[TaskRow]) -> list[OpenTask]:
        async with self.database.session() as session:
            return [as_open(row) for row in await session.scalars(query)]


def _is_old(older_than: timedelta) -> ColumnElement[bool]:
    """Old enough, or of a future that somebody made up: that would never be old enough."""
    return or_(
        TaskRow.created_at < func.now() - older_than, TaskRow.created_at > func.now() + MADE_UP
    )


def as_open(row: TaskRow) -> OpenTask:
    """A row as the reconciler compares it with Redis."""
    task = None
    if row.input is not None:
        task = Task(
            task_id=row.id,
            agent=row.agent,
            input=row.input,
            queue=row.queue,
            priority=Priority(row.priority),
            idempotency_key=row.idempotency_key,
            run_at=row.run_at,
            expires_at=row.expires_at,
            parent_id=row.parent_id,
            root_id=row.root_id,
            tenant=row.tenant,
            metadata=row.meta or {},
            budget=None if row.budget is None else Budget.model_validate(row.budget),
            traceparent=row.traceparent,
        )
    return OpenTask(
        task_id=row.id,
        agent=row.agent,
        queue=row.queue,
        priority=row.priority,
        state=TaskState(row.state),
        progress=row.progress,
        attempt=row.attempt,
        crashes=row.crashes,
        stream=row.stream,
        entry_id=row.entry_id,
        created_at=row.created_at,
        cancel_requested_by=row.cancel_requested_by if row.cancel_requested_at else None,
        task=task,
    )
