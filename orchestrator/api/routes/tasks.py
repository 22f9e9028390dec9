"""/api/v1/tasks: submit one or many, read, list, cancel, retry."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import Body, Header, Response
from pydantic import Field

from orchestrator.api import paging
from orchestrator.api.auth import Actor, needs
from orchestrator.api.paging import Cursor, Limit, Listed, Moment
from orchestrator.api.parts import Parts
from orchestrator.api.problems import Problem
from orchestrator.api.requests import BulkRoute, guarded
from orchestrator.api.schemas import (
    MOST_AT_ONCE,
    Accepted,
    AcceptedMany,
    AttemptOut,
    ResultOut,
    Stands,
    TaskIn,
    TaskOut,
    TaskSummary,
)
from orchestrator.api.submitting import submit, task_of
from orchestrator.db import listing
from orchestrator.db.keys import Scope
from orchestrator.errors import TaskNotFound
from orchestrator.task import Name, TaskState

PATH = "/api/v1/tasks"
REPLAYED = "Idempotency-Replayed"

router = guarded(PATH, "tasks")
bulk = guarded(PATH, "tasks", route_class=BulkRoute)

Key = Annotated[str | None, Header(alias="Idempotency-Key", max_length=202)]


@router.post(
    "", status_code=202, operation_id="submitTask", dependencies=[needs(Scope.TASKS_WRITE)]
)
async def submit_task(
    body: TaskIn,
    parts: Parts,
    actor: Actor,
    response: Response,
    idempotency_key: Key = None,
) -> Accepted:
    """Accept one task. 202 with durability `database` means that its row is committed."""
    body = _with_key(body, idempotency_key)
    task = task_of(parts.registry, body)
    receipt = (await submit(parts, [task], durability=body.durability, actor=actor))[0]
    response.headers["Location"] = f"{PATH}/{receipt.task_id}"
    state = receipt.state
    if not receipt.created:
        response.headers[REPLAYED] = "true"
        state = await parts.submitter.state(receipt.task_id)
    return Accepted(id=receipt.task_id, agent=task.agent, state=state)


@bulk.post(
    "/bulk", status_code=202, operation_id="submitTasks", dependencies=[needs(Scope.TASKS_WRITE)]
)
async def submit_tasks(
    body: Annotated[list[TaskIn], Body(), Field(min_length=1, max_length=MOST_AT_ONCE)],
    parts: Parts,
    actor: Actor,
) -> AcceptedMany:
    """Accept many tasks, all or none; `durability` is that of the first, and of all."""
    chosen = {each.durability for each in body}
    if len(chosen) > 1:
        raise Problem(
            422, "invalid_request", "tasks of one request have one durability; split the request"
        )
    tasks = [task_of(parts.registry, each, at=f"/{i}") for i, each in enumerate(body)]
    receipts = await submit(parts, tasks, durability=chosen.pop(), actor=actor)
    return AcceptedMany(
        items=[
            Accepted(id=receipt.task_id, agent=task.agent, state=receipt.state)
            for task, receipt in zip(tasks, receipts, strict=True)
        ]
    )


@router.get("", operation_id="listTasks", dependencies=[needs(Scope.TASKS_READ)])
async def list_tasks(
    parts: Parts,
    *,
    agent: Name | None = None,
    state: TaskState | None = None,
    queue: Name | None = None,
    tenant: Name | None = None,
    since: Moment | None = None,
    until: Moment | None = None,
    limit: Limit = paging.DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Listed[TaskSummary]:
    """Tasks by birth, the newest first; `since` is included, `until` is not."""
    filters: dict[str, Any] = {
        "agent": agent, "state": state and state.value, "queue": queue, "tenant": tenant,
        "since": since, "until": until,
    }  # fmt: skip
    after = paging.after(cursor, filters)
    page = await listing.tasks(parts.database, **filters, after=after, limit=limit)
    return paging.listed(page, TaskSummary.model_validate, filters)


@router.get("/{task_id}", operation_id="readTask", dependencies=[needs(Scope.TASKS_READ)])
async def read_task(task_id: UUID, parts: Parts) -> TaskOut:
    """One task with its result and attempts, as recorded."""
    found = await listing.task(parts.database, str(task_id))
    if found is None:
        raise TaskNotFound(str(task_id))
    attempts = [AttemptOut.model_validate(each) for each in found.attempts]
    result = ResultOut.model_validate(found.result) if found.result else None
    shown = TaskOut.model_validate(found.task)
    return shown.model_copy(update={"result": result, "attempts": attempts})


@router.post(
    "/{task_id}/cancel",
    status_code=202,
    operation_id="cancelTask",
    dependencies=[needs(Scope.TASKS_WRITE)],
)
async def cancel_task(task_id: UUID, parts: Parts, actor: Actor) -> Stands:
    """Ask for its end. With Redis down the request is kept and completed later."""
    state = await parts.submitter.cancel(str(task_id), actor=actor)
    if state.is_terminal and state is not TaskState.CANCELLED:
        raise Problem(
            409, "task_ended", f"task {task_id} {state.value} before it could be cancelled"
        )
    return Stands(id=str(task_id), state=state)


@router.post(
    "/{task_id}/retry",
    status_code=202,
    operation_id="retryTask",
    dependencies=[needs(Scope.TASKS_WRITE)],
)
async def retry_task(task_id: UUID, parts: Parts, actor: Actor, response: Response) -> Accepted:
    """A new task with the same agent and input; `metadata.retry_of` names the old one."""
    found = await listing.task(parts.database, str(task_id))
    if found is None:
        raise TaskNotFound(str(task_id))
    old = found.task
    state = await parts.submitter.state(old.id)
    if not state.is_terminal:
        raise Problem(
            409,
            "task_not_ended",
            f"task {task_id} is {state.value}; cancel it, or wait for its end",
        )
    if old.input is None:
        raise Problem(409, "task_unknown", f"the message of task {task_id} was never read")
    body = TaskIn(
        agent=old.agent,
        input=old.input,
        queue=old.queue,
        priority=old.priority,
        tenant=old.tenant,
        metadata={**(old.meta or {}), "retry_of": old.id},
    )
    task = task_of(parts.registry, body)
    receipt = (await submit(parts, [task], durability=None, actor=actor))[0]
    response.headers["Location"] = f"{PATH}/{receipt.task_id}"
    return Accepted(id=receipt.task_id, agent=task.agent, state=receipt.state)


def _with_key(body: TaskIn, header: str | None) -> TaskIn:
    if header is None:
        return body
    # The IETF draft's string has quotes, most clients send none.
    quoted = len(header) > 1 and header[0] == header[-1] == '"'
    key = header[1:-1] if quoted else header
    if not key or not key.isprintable() or len(key) > 200:  # noqa: PLR2004 - as the body's field
        raise Problem(422, "invalid_request", "Idempotency-Key is 1 to 200 printable characters")
    if body.idempotency_key not in {None, key}:
        raise Problem(
            422,
            "invalid_request",
            "the header Idempotency-Key and the field idempotency_key differ; send one of them",
        )
    if body.task_id is not None:
        raise Problem(
            422,
            "invalid_request",
            "task_id and Idempotency-Key both name the task; send one of them",
        )
    return body.model_copy(update={"idempotency_key": key})
