"""Accepts tasks durably and knows what became of them: the submitter's side of the record."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import event, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from orchestrator.db.accepting import accept, accept_new
from orchestrator.db.models import ResultRow, TaskRow
from orchestrator.db.recording import write_audit
from orchestrator.db.session import Database
from orchestrator.errors import TaskNotFound
from orchestrator.event import EventKind, TaskEvent
from orchestrator.record import AuditEntry
from orchestrator.task import Task, TaskId, TaskState, new_id

Publish = Callable[[Sequence[Task]], Coroutine[Any, Any, None]]

# Publishing that a commit has set off; held so that it is not collected half way.
_publishing: set[asyncio.Task[None]] = set()


class TaskStore:
    """Rows of `tasks`, written before anything is published."""

    def __init__(self, database: Database) -> None:
        """Store."""
        self.database = database

    async def accept(self, tasks: Sequence[Task], *, actor: str) -> dict[TaskId, bool]:
        """Commit a row for each; True where it is new. Raises TaskIdConflict, Unavailable.

        All or none: one conflict refuses the lot.
        """
        async with self.database.transaction() as connection:
            return await accept(connection, tasks, actor=actor)

    async def accept_new(self, asked: Sequence[tuple[Task, str]]) -> set[TaskId]:
        """Commit rows for (task, actor), together; the ids of the new ones. See `accepting`."""
        return await accept_new(self.database, asked)

    async def accept_in(
        self, session: AsyncSession, tasks: Sequence[Task], *, actor: str, publish: Publish
    ) -> dict[TaskId, bool]:
        """The same inside the caller's transaction; `publish` gets what has been committed."""
        created = await accept(await session.connection(), tasks, actor=actor)
        pending = session.sync_session.info.setdefault("aurora_pending", {})
        if not pending:
            self._publish_at_commit(session, publish)
        pending.update({task.task_id: task for task in tasks})
        return created

    def _publish_at_commit(self, session: AsyncSession, publish: Publish) -> None:
        sync, loop = session.sync_session, asyncio.get_running_loop()
        pending: dict[TaskId, Task] = sync.info["aurora_pending"]

        async def publish_committed() -> None:
            # Asked of the rows: the release of a savepoint is told as a commit, too, and what a
            # rollback took is in no row.
            kept = await self._existing(list(pending))
            await publish([task for task_id in kept if (task := pending.pop(task_id, None))])

        def committed(_: Session) -> None:
            # Should this process die before it has run, the reconciler publishes.
            task = loop.create_task(publish_committed())
            _publishing.add(task)
            task.add_done_callback(_publishing.discard)

        if not sync.info.get("aurora_listens"):
            sync.info["aurora_listens"] = True
            event.listen(sync, "after_commit", committed)

    async def _existing(self, task_ids: Sequence[TaskId]) -> list[TaskId]:
        async with self.database.transaction() as connection:
            found = await connection.execute(
                text("SELECT id::text FROM tasks WHERE id = ANY(CAST(:ids AS uuid[]))"),
                {"ids": task_ids},
            )
            return [row[0] for row in found]

    async def state(self, task_id: TaskId) -> TaskState | None:
        """Where the task stands, None without a row."""
        async with self.database.session() as session:
            found = await session.scalar(select(TaskRow.state).where(TaskRow.id == task_id))
        return TaskState(found) if found else None

    async def ended(self, task_id: TaskId) -> TaskEvent | None:
        """The task's recorded end."""
        async with self.database.session() as session:
            row = await session.get(ResultRow, task_id)
        if row is None:
            return None
        return TaskEvent(
            task_id=row.task_id,
            agent=row.agent,
            event=EventKind(row.state),
            at=row.finished_at or row.recorded_at,
            attempt=row.attempt,
            output=row.output,
            error=row.error,
            usage=row.usage,
            worker=row.worker,
            started_at=row.started_at,
            finished_at=row.finished_at,
        )

    async def request_cancel(self, task_id: TaskId, *, actor: str) -> tuple[TaskState, str, int]:
        """Write down that somebody wants its end; (state, agent, attempt) as they stand.

        Raises TaskNotFound.
        """
        now = datetime.now(UTC)
        async with self.database.session() as session:
            row = await session.get(TaskRow, task_id, with_for_update=True)
            if row is None:
                raise TaskNotFound(task_id)
            state = TaskState(row.state)
            if not state.is_terminal and row.cancel_requested_at is None:
                await session.execute(
                    update(TaskRow)
                    .where(TaskRow.id == task_id)
                    .values(cancel_requested_at=now, cancel_requested_by=actor)
                )
                entry = AuditEntry(
                    id=new_id(), at=now, action="task.cancel_requested", actor=actor,
                    object_type="task", object_id=task_id, before={"state": state.value},
                )  # fmt: skip
                await write_audit(await session.connection(), [entry])
            return state, row.agent, row.attempt
