"""What `delay()` submits through: a small Protocol, and the ContextVar that holds it.

`orchestrator.connect()` sets it for a program, a worker for the code it runs. Agents and handles
know only this file, so that writing an agent needs neither Redis nor Postgres.
"""

from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

from orchestrator.errors import NotConnected
from orchestrator.event import TaskEvent
from orchestrator.task import Durability, Task, TaskId, TaskState


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What a submission came to."""

    task_id: TaskId
    created: bool = True  # False: the same task was accepted before
    entry_id: str | None = None  # None: accepted, and published later (or by the caller's commit)
    state: TaskState = TaskState.QUEUED


class Submitter(Protocol):
    """The way in: accepts tasks, and knows what became of them."""

    async def submit(
        self, task: Task, *, durability: Durability | None = None, session: Any = None
    ) -> Receipt:
        """Accept one task. Raises TaskIdConflict, PayloadTooLarge, Unavailable, Overloaded."""
        ...

    async def submit_many(
        self, tasks: Sequence[Task], *, durability: Durability | None = None
    ) -> list[Receipt]:
        """Accept many at once, all or none with durability `database`."""
        ...

    async def ended(
        self, task_id: TaskId, *, since: str | None, timeout: float | None, recorded: bool
    ) -> TaskEvent:
        """Wait for the task's end. Raises TimeoutError after `timeout` seconds."""
        ...

    async def state(self, task_id: TaskId) -> TaskState:
        """Where the task stands now. Raises TaskNotFound."""
        ...

    async def cancel(self, task_id: TaskId, *, actor: str) -> TaskState:
        """Ask for the task's end; the state it is in afterwards. Raises TaskNotFound."""
        ...


_submitter: ContextVar[Submitter | None] = ContextVar("aurora_submitter", default=None)


def current_submitter() -> Submitter:
    """What this code submits through. Raises NotConnected with the line to write."""
    found = _submitter.get()
    if found is None:
        raise NotConnected
    return found


def set_submitter(submitter: Submitter | None) -> None:
    """Set for this context and what it starts (`connect()` and the worker call this)."""
    _submitter.set(submitter)
