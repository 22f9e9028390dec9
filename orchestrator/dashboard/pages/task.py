"""/tasks/{id}: what one task did and why, what it was given and gave; cancel and retry."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from fastapi import Request
from starlette.responses import RedirectResponse, Response

from orchestrator.api.auth import Actor, key_of, needs
from orchestrator.api.parts import ApiParts, Parts
from orchestrator.api.routes import tasks as routes
from orchestrator.dashboard.forms import own_form
from orchestrator.dashboard.rendering import Shown
from orchestrator.dashboard.routing import Reading, pages
from orchestrator.dashboard.standing import Surroundings, sentence
from orchestrator.dashboard.timeline import bars
from orchestrator.db import listing
from orchestrator.db.keys import Scope
from orchestrator.db.models import AuditRow, TaskRow
from orchestrator.db.session import Database
from orchestrator.db.usage import MOST_CALLS, calls_of
from orchestrator.errors import TaskNotFound, Unavailable
from orchestrator.streams.names import ORCHESTRATOR
from orchestrator.streams.statistics import pending_of
from orchestrator.task import TaskState
from orchestrator.usage import Usage

router = pages()

EVENTS = 100  # of a task, the first ones
# What our own parts write into `metadata`, and where it leads.
LINKS = {
    "alert_id": ("Alert", "/alerts/"),
    "retry_of": ("Retry of", "/tasks/"),
    "redrive_of": ("Redriven from", "/dead-letters/"),
    "schedule_id": ("Schedule", "/schedules/"),
}


@router.get("/tasks/{task_id}", dependencies=[needs(Scope.TASKS_READ)])
async def show_task(
    task_id: UUID, request: Request, parts: Parts, reading: Reading, show: Shown
) -> Response:
    """One task in full."""
    found = await listing.task(reading, str(task_id))
    if found is None:
        raise TaskNotFound(str(task_id))
    task, now = found.task, datetime.now(UTC)
    ended = TaskState(task.state).is_terminal
    why, command = sentence(task, found.result, await _around(parts, task), now)
    usages = {e.attempt: Usage.model_validate(e.usage) for e in found.attempts if e.usage}
    return show(
        "task.html",
        task=task,
        result=found.result,
        attempts=found.attempts,
        bars=bars(task, found.attempts, now),
        due=max(task.created_at, task.run_at or task.created_at),
        ended=ended,
        why=why,
        command=command,
        links=_links(task),
        events=await _events(reading, request, task),
        usages=usages,
        spent=Usage.together(usages.values()) if usages else None,
        calls=await calls_of(reading, task.id) if usages else [],
        most_calls=MOST_CALLS,
    )


@router.post("/tasks/{task_id}/cancel", dependencies=[needs(Scope.TASKS_WRITE), own_form])
async def cancel_task(task_id: UUID, parts: Parts, actor: Actor) -> Response:
    """Ask for its end."""
    await routes.cancel_task(task_id, parts, actor)
    return RedirectResponse(f"/tasks/{task_id}", 303)


@router.post("/tasks/{task_id}/retry", dependencies=[needs(Scope.TASKS_WRITE), own_form])
async def retry_task(task_id: UUID, parts: Parts, actor: Actor) -> Response:
    """A new task with the same agent and input; on to that one."""
    accepted = await routes.retry_task(task_id, parts, actor, Response())
    return RedirectResponse(f"/tasks/{accepted.id}", 303)


async def _around(parts: ApiParts, task: TaskRow) -> Surroundings:
    served = None
    if TaskState(task.state) in {TaskState.QUEUED, TaskState.RETRYING, TaskState.SCHEDULED}:
        with suppress(Unavailable):
            lanes = parts.streams.keys.lanes(task.queue)
            served = await pending_of(parts.streams, lanes, group=ORCHESTRATOR) > 0
    return Surroundings(knows_agent=task.agent in parts.registry.by_name, queue_is_served=served)


async def _events(reading: Database, request: Request, task: TaskRow) -> Sequence[AuditRow] | None:
    """What happened to it, the first first; None where this key may not read the audit."""
    if not key_of(request).allows(Scope.AUDIT_READ):
        return None
    page = await listing.audit(reading, object_id=task.id, limit=EVENTS)
    return page.rows[::-1]


def _links(task: TaskRow) -> list[tuple[str, str, str]]:
    """(what, address, text) of what this task came from; ids that are none lead nowhere."""
    given: dict[str, Any] = task.meta or {}
    found = [("Parent", f"/tasks/{task.parent_id}", task.parent_id)] if task.parent_id else []
    for name, (what, path) in LINKS.items():
        with suppress(ValueError, TypeError, AttributeError):
            said = str(UUID(given.get(name)))
            found.append((what, f"{path}{said}", said))
    return found
