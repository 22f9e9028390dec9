"""`aurora tasks`: what was asked for, and what became of it."""

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from orchestrator.cli import opening
from orchestrator.cli.moments import Since, moment
from orchestrator.cli.output import Format, Limit, Output, show_list, show_one
from orchestrator.cli.paging import rows
from orchestrator.errors import OrchestratorError, TaskNotFound

if TYPE_CHECKING:
    from orchestrator.parts import Parts
    from orchestrator.task import TaskState

app = typer.Typer(no_args_is_help=True, help="Tasks: list, show, cancel, retry.")
TaskId = Annotated[UUID, typer.Argument(metavar="TASK")]

COLUMNS = (
    "id", "agent", "state", "attempt", "queue", "priority", "tenant", "created_at", "run_at",
    "started_at", "finished_at", "worker", "parent_id",
)  # fmt: skip
SHOWN = ("id", "agent", "state", "attempt", "queue", "priority", "created_at", "finished_at")
DETAIL = (*COLUMNS[:4], "crashes", *COLUMNS[4:], "root_id", "idempotency_key", "expires_at",
          "published_at", "stream", "entry_id", "cancel_requested_at", "cancel_requested_by",
          "input")  # fmt: skip
ATTEMPT = ("attempt", "state", "worker", "started_at", "finished_at", "error", "usage")
RESULT = ("state", "attempt", "output", "error", "usage", "recorded_at")


class State(StrEnum):
    """`task.TaskState`, repeated because importing it would cost `--help` its speed."""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    DEAD = "dead"


class NotPossibleNow(OrchestratorError):
    """The task's state does not allow it."""


@app.command("list")
def list_tasks(
    *,
    state: Annotated[State | None, typer.Option()] = None,
    agent: Annotated[str | None, typer.Option()] = None,
    queue: Annotated[str | None, typer.Option()] = None,
    tenant: Annotated[str | None, typer.Option()] = None,
    since: Since = None,
    until: Since = None,
    limit: Limit = 50,
    output: Output = Format.TABLE,
) -> None:
    """List tasks, the newest first."""

    async def work(parts: "Parts") -> list[dict[str, Any]]:
        from functools import partial

        from orchestrator.db import listing

        return await rows(
            partial(listing.tasks, parts.database), COLUMNS, limit,
            state=state and state.value, agent=agent, queue=queue, tenant=tenant,
            since=moment(since), until=moment(until),
        )  # fmt: skip

    show_list(opening.with_parts(work), output, columns=SHOWN, nothing="no tasks")


@app.command("show")
def show_task(task_id: TaskId, output: Output = Format.TABLE) -> None:
    """Show one task with its result and the attempts worth a line."""

    async def work(parts: "Parts") -> dict[str, Any]:
        from orchestrator.db import listing

        found = await listing.task(parts.database, str(task_id))
        if found is None:
            raise TaskNotFound(str(task_id))
        shown = _picked(found.task, DETAIL)
        shown["metadata"] = found.task.meta
        shown["result"] = _picked(found.result, RESULT) if found.result else None
        shown["attempts"] = [_picked(each, ATTEMPT) for each in found.attempts]
        return shown

    show_one(opening.with_parts(work), output)


@app.command("cancel")
def cancel_task(task_id: TaskId) -> None:
    """Ask for a task's end. Works without workers, and while Redis is away."""

    async def work(parts: "Parts") -> "TaskState":
        return await parts.submitter.cancel(str(task_id), actor=opening.actor())

    state = opening.with_parts(work)
    if state.is_terminal and state.value != State.CANCELLED:
        raise NotPossibleNow(f"task {task_id} {state.value} before it could be cancelled")
    said = "cancelled" if state.is_terminal else f"{state.value}; its end is asked for"
    print(f"task {task_id} is {said}")


@app.command("retry")
def retry_task(task_id: TaskId) -> None:
    """Submit an ended task again, as a new task with the same agent and input."""

    async def work(parts: "Parts") -> str:
        from orchestrator.db import listing

        found = await listing.task(parts.database, str(task_id))
        if found is None:
            raise TaskNotFound(str(task_id))
        old = found.task
        state = await parts.submitter.state(old.id)
        if not state.is_terminal:
            raise NotPossibleNow(f"task {old.id} is {state.value}; cancel it, or wait for its end")
        if old.input is None:
            raise NotPossibleNow(f"the message of task {old.id} was never read")
        again = parts.registry.get(old.agent).task(
            old.input, queue=old.queue, priority=old.priority, tenant=old.tenant,
            metadata={**(old.meta or {}), "retry_of": old.id},
        )  # fmt: skip
        receipts = await parts.submitter.submit_many([again], actor=opening.actor())
        return receipts[0].task_id

    print(f"task {opening.with_parts(work)}")


def _picked(row: Any, names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(row, name) for name in names}
