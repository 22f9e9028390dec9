"""Closes dead letters: redriven (said again) or dropped. The API calls both.

A letter's row stays locked while its message is said again. A task's message becomes a row in the
same transaction that closes the letter, so both happen or neither. Any other message is on its
stream before the commit: a crash in between leaves the letter open and says it twice, under one id.
"""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.accepting import accept
from orchestrator.db.models import DeadLetterRow
from orchestrator.db.recording import write_audit
from orchestrator.db.session import Database
from orchestrator.errors import OrchestratorError
from orchestrator.record import AuditEntry
from orchestrator.task import Task, TaskId, derived_id, new_id


class LetterNotFound(OrchestratorError):
    """No dead letter of that id."""

    def __init__(self, letter_id: str) -> None:
        self.letter_id = letter_id
        super().__init__(f"no dead letter {letter_id}")


class LetterClosed(OrchestratorError):
    """Somebody has redriven or dropped it before."""

    def __init__(self, row: DeadLetterRow) -> None:
        self.letter_id = row.id
        super().__init__(
            f"dead letter {row.id} was {row.closed_as} by {row.closed_by}"
            + (f", as task {row.redriven_task_id}" if row.redriven_task_id else "")
        )


def redriven_id(letter_id: str) -> TaskId:
    """The id of the task that a letter becomes: the same however often it is asked for."""
    return derived_id("redrive", letter_id)


async def redrive(
    database: Database,
    letter_id: str,
    *,
    actor: str,
    again: Callable[[DeadLetterRow], Awaitable[Task | None]],
) -> tuple[DeadLetterRow, Task | None]:
    """Close the letter, its message said again; the row as it then stands, and the new task.

    `again` gives the task that the message becomes, which is accepted here and published by the
    caller; or it says the message itself and gives None. What it raises leaves the letter open.
    Raises LetterNotFound, LetterClosed, TaskIdConflict, Unavailable.
    """
    async with database.session() as session:
        row = await _open(session, letter_id)
        task = await again(row)
        if task is not None:
            await accept(await session.connection(), [task], actor=actor)
        await _close(session, row, "redriven", actor=actor, task_id=task.task_id if task else None)
    return row, task


async def drop(database: Database, letter_id: str, *, actor: str) -> DeadLetterRow:
    """Close the letter for good; the row as it then stands. The message stays readable in it.

    Raises LetterNotFound, LetterClosed, Unavailable.
    """
    async with database.session() as session:
        row = await _open(session, letter_id)
        await _close(session, row, "dropped", actor=actor, task_id=None)
    return row


async def _open(session: AsyncSession, letter_id: str) -> DeadLetterRow:
    """The row, locked; a second caller waits here and then finds it closed."""
    row = await session.get(DeadLetterRow, letter_id, with_for_update=True)
    if row is None:
        raise LetterNotFound(letter_id)
    if row.closed_at is not None:
        raise LetterClosed(row)
    return row


async def _close(
    session: AsyncSession, row: DeadLetterRow, how: str, *, actor: str, task_id: TaskId | None
) -> None:
    row.closed_at, row.closed_by, row.closed_as = datetime.now(UTC), actor, how
    row.redriven_task_id = task_id
    detail: dict[str, Any] = {"stream": row.stream, "entry_id": row.entry_id, "reason": row.reason}
    entry = AuditEntry(
        id=new_id(),
        at=row.closed_at,
        action=f"dead_letter.{how}",
        actor=actor,
        object_type="dead_letter",
        object_id=row.id,
        before={"closed_as": None},
        after={"closed_as": how, "redriven_task_id": task_id},
        detail=detail,
    )
    await session.flush()
    await write_audit(await session.connection(), [entry])
