"""What an agent's `run` is told about its task, and what it may say while it works."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from orchestrator.task import Task

Emit = Callable[[dict[str, Any]], Awaitable[bool]]
Query = Callable[[str, Mapping[str, Any]], Awaitable[list[dict[str, Any]]]]


_LOGGER = logging.getLogger("aurora.agent")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """One attempt of one task. Never used for another."""

    task: Task
    attempt: int
    worker: str
    deadline: datetime
    emit: Emit
    read: Query
    logger: logging.Logger = _LOGGER

    @property
    def task_id(self) -> str:
        """The task's id: the key to hand to tools that honour one."""
        return self.task.task_id

    async def progress(self, **detail: Any) -> bool:
        """Say how far the run has come; False when this worker no longer owns the task.

        Small JSON values only. An agent that is told False should stop: whatever it returns
        is not accepted. While Redis is away the news is lost, and the answer is True.
        """
        return await self.emit(detail)

    async def query(self, sql: str, **params: Any) -> list[dict[str, Any]]:
        """Rows of the record (Postgres, read only): `ctx.query("SELECT ... WHERE id = :id", id=x)`.

        The tables are those of the design, section 5. Values go in as parameters, never into the
        text: what an alert brought is hostile.
        """
        return await self.read(sql, params)


_running: ContextVar[RunContext | None] = ContextVar("aurora_running", default=None)


def current_run() -> RunContext | None:
    """The attempt that this code belongs to; None outside of a run."""
    return _running.get()


def set_running(context: RunContext) -> None:
    """Set for the asyncio task of one attempt (the runner calls this)."""
    _running.set(context)
