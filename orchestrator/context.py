"""What an agent's `run` is told about its task, and what it may say while it works."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from orchestrator.budget import NO_BUDGET, Budget
from orchestrator.errors import ConfigurationError
from orchestrator.provider import News
from orchestrator.spending import Need
from orchestrator.task import Task
from orchestrator.usage import ModelCall

if TYPE_CHECKING:
    from pydantic_ai import Agent as ModelAgent
    from pydantic_ai.run import AgentRunResult

Emit = Callable[[dict[str, Any]], Awaitable[bool]]
Query = Callable[[str, Mapping[str, Any]], Awaitable[list[dict[str, Any]]]]
DepsT = TypeVar("DepsT")
AnswerT = TypeVar("AnswerT")


class RunClock:
    """The time that an attempt has; waiting for somebody else's limit is not counted."""

    __slots__ = ("_end", "_told", "limit")

    def __init__(self, told: Callable[[float], None] | None = None) -> None:
        """`told` hears of each extension in seconds, for whoever watches this run, too."""
        self.limit: asyncio.Timeout | None = None
        self._end = 0.0  # by the loop's clock
        self._told = told

    def start(self, seconds: float) -> None:
        """Count so many seconds from now."""
        self._end = asyncio.get_running_loop().time() + seconds

    def running(self) -> asyncio.Timeout:
        """Cancels its block at the end. Not set at the start: what never waits needs no timer."""
        self.limit = asyncio.timeout_at(self._end)
        return self.limit

    @property
    def has_run_out(self) -> bool:
        """True once the block was cancelled."""
        return self.limit is not None and self.limit.expired()

    def extend(self, seconds: float) -> None:
        """So much more time, from now on."""
        self._end += seconds
        if self.limit is not None and (end := self.limit.when()) is not None:
            self.limit.reschedule(end + seconds)
        if self._told is not None:
            self._told(seconds)


@dataclass(frozen=True, slots=True)
class Admission:
    """Whether a model call may go now. `wait` in seconds, then ask again; 0: go."""

    wait: float
    tokens_left: int | None = None  # of the budget; None: no limit


class ModelAccess(Protocol):
    """What the model calls of one run ask of its worker."""

    async def admit(self, call_id: str, provider: str, need: Need) -> Admission:
        """Ask for leave, by budget and by the provider's gate. Raises ModelFailed, Unavailable."""
        ...

    async def tell(self, call_id: str, provider: str, news: News) -> None:
        """Tell what the call showed of the provider, for everybody who shares its key."""
        ...

    async def spend(self, call: ModelCall) -> None:
        """Tell of an answered call; it is on its way to the record when this returns."""
        ...

    async def drop(self, call_id: str) -> None:
        """Tell of a call that was admitted and got no answer."""
        ...


class Asker(Protocol):
    """Runs an agent of pydantic-ai under this run's budget and record."""

    async def ask(
        self,
        ctx: "RunContext",
        agent: "ModelAgent[DepsT, AnswerT]",
        prompt: Any,
        *,
        deps: DepsT,
        options: Mapping[str, Any],
    ) -> "AgentRunResult[AnswerT]":
        """Raises ModelFailed."""
        ...

    async def close(self) -> None:
        """End the connections; no run is under way any more."""
        ...


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
    budget: Budget = NO_BUDGET
    access: ModelAccess | None = None
    asker: Asker | None = None
    clock: RunClock = field(default_factory=RunClock)
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

    async def ask(
        self,
        agent: "ModelAgent[DepsT, AnswerT]",
        prompt: Any,
        *,
        deps: DepsT = None,  # type: ignore[assignment]  # as pydantic-ai's own `run`
        **options: Any,
    ) -> "AgentRunResult[AnswerT]":
        """Run an agent of pydantic-ai: `(await ctx.ask(assess, "...")).output`.

        Its model is the agent's own, or AURORA_MODEL. Each call is metered, kept within the
        task's budget, and waits where the provider limits or is away. `options` go to pydantic-ai's
        `run`. Raises ModelFailed; ConfigurationError without the extra `models`.
        """
        if self.asker is None:
            raise ConfigurationError(
                "ctx.ask needs the extra for models: pip install 'aurora-orchestrator[models]'"
            )
        return await self.asker.ask(self, agent, prompt, deps=deps, options=options)


_running: ContextVar[RunContext | None] = ContextVar("aurora_running", default=None)


def current_run() -> RunContext | None:
    """The attempt that this code belongs to; None outside of a run."""
    return _running.get()


def set_running(context: RunContext) -> None:
    """Set for the asyncio task of one attempt (the runner calls this)."""
    _running.set(context)
