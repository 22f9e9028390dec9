"""From a request's body to an accepted task; every route that submits goes through here."""

from collections.abc import Sequence
from datetime import UTC, datetime

from pydantic import ValidationError

from orchestrator.api.parts import ApiParts
from orchestrator.api.problems import invalid, problem_of, wrong
from orchestrator.api.schemas import TaskIn
from orchestrator.client import Receipt
from orchestrator.errors import Rejected
from orchestrator.registry import AgentRegistry
from orchestrator.task import Durability, Task, new_id


async def submit(
    parts: ApiParts, tasks: Sequence[Task], *, durability: Durability | None, actor: str
) -> list[Receipt]:
    """Accept them in the name of `actor`. Raises as `TaskSubmitter.submit_many`."""
    chosen = durability or parts.settings.durability
    if chosen is Durability.STREAM:
        # The entry does not say who asked, and the recorder writes the audit from the entry. Said
        # before: an act without its task shows an attempt, a task without its act shows nothing.
        one = len(tasks) == 1
        await parts.publisher.audit(
            "task.requested" if one else "tasks.requested",
            object_type="task" if one else "request",
            object_id=tasks[0].task_id if one else new_id(),
            actor=actor,
            detail={"task_ids": [task.task_id for task in tasks]},
        )
    return await parts.submitter.submit_many(tasks, durability=chosen, actor=actor)


def task_of(registry: AgentRegistry, body: TaskIn, *, at: str = "") -> Task:
    """The task that this body asks for. Raises UnknownAgent, InvalidInput, Problem.

    `at` is the body's own pointer in the request.
    """
    now = datetime.now(UTC)
    try:
        return registry.get(body.agent).task(
            body.input,
            task_id=body.task_id,
            idempotency_key=body.idempotency_key,
            queue=body.queue,
            priority=body.priority,
            tenant=body.tenant,
            run_at=body.run_at(now),
            expires_at=body.expires_at(now),
            metadata=body.metadata,
        )
    except ValidationError as error:
        raise invalid(error, at=at) from error
    except Rejected as error:
        problem = problem_of(error)
        problem.errors = [wrong(at + each["pointer"], each["message"]) for each in problem.errors]
        raise problem from error
