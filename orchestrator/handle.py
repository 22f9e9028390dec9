"""A submitted task in the caller's hand: wait for its result, ask its state, cancel it."""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter

from orchestrator.client import Receipt, Submitter
from orchestrator.errors import TaskUnsuccessful
from orchestrator.event import TaskEvent
from orchestrator.task import TaskId, TaskState

OutputT = TypeVar("OutputT")


@dataclass(frozen=True, slots=True)
class Handle(Generic[OutputT]):
    """Celery's AsyncResult, typed by the agent that made it."""

    receipt: Receipt
    output: TypeAdapter[OutputT]
    submitter: Submitter

    @property
    def task_id(self) -> TaskId:
        """The task's id."""
        return self.receipt.task_id

    async def get(self, timeout: float | None = None, *, recorded: bool = False) -> OutputT:
        """The result, validated as the agent's output type.

        `timeout` is in seconds. With `recorded=True` it returns once the row is committed.
        Raises TimeoutError, or TaskUnsuccessful when the task ended otherwise than succeeded.
        """
        event = await self.submitter.ended(
            self.task_id, since=self.receipt.entry_id, timeout=timeout, recorded=recorded
        )
        return self.output.validate_python(_successful(event))

    async def state(self) -> TaskState:
        """Where the task stands now."""
        return await self.submitter.state(self.task_id)

    async def cancel(self, *, actor: str = "client") -> TaskState:
        """Ask for the task's end; the state it is in afterwards."""
        return await self.submitter.cancel(self.task_id, actor=actor)


def _successful(event: TaskEvent) -> Any:
    if event.event.state is TaskState.SUCCEEDED:
        return event.output
    said = event.error or {}
    raise TaskUnsuccessful(event.task_id, event.event.state.value, said.get("message"))
