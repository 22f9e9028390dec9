"""A worker's side of model calls: the task's budget, the provider's gate, and the record."""

import asyncio
import itertools
import logging
from typing import Protocol

from orchestrator.budget import NO_BUDGET, Budget
from orchestrator.context import Admission, Query
from orchestrator.errors import Overloaded, Unavailable
from orchestrator.model_failure import FailureKind, ModelFailed
from orchestrator.provider import News, Place
from orchestrator.spending import Need, excess
from orchestrator.streams.consumer import BACKOFF
from orchestrator.task import Task
from orchestrator.usage import ModelCall, Usage

logger = logging.getLogger("aurora.models")

# Seconds between looks while another call of the same task is under way: a budget is checked
# against what has been spent, so the calls of a task that has one go one after the other.
ONE_AT_A_TIME = 0.05

SPENT = """SELECT count(*) AS requests, coalesce(sum(input_tokens), 0)::bigint AS input_tokens,
coalesce(sum(output_tokens), 0)::bigint AS output_tokens,
coalesce(sum(cached_tokens), 0)::bigint AS cached_tokens,
coalesce(sum(tool_calls), 0)::bigint AS tool_calls, sum(cost_usd) AS cost_usd,
count(*) FILTER (WHERE cost_usd IS NULL) AS unpriced_requests
FROM model_calls WHERE task_id = :id"""


class Gate(Protocol):
    """What holds calls back while their provider limits or is away."""

    async def admit(self, provider: str, place: Place) -> float:
        """Seconds to wait and then ask again with the same place; 0: go."""
        ...

    async def tell(self, provider: str, news: News, place: Place) -> None:
        """What the call that was let in at this place has told of its provider."""
        ...


class Ledger(Protocol):
    """Where calls are told, and what a task with a budget has spent."""

    async def add(self, task: Task, attempt: int, call: ModelCall, *, counted: bool) -> None:
        """Tell of a call. Raises Unavailable, Overloaded."""
        ...

    async def spent(self, task_id: str) -> Usage:
        """What has been told of this task."""
        ...


class ModelDesk:
    """One per worker; makes each run its access."""

    def __init__(self, gate: Gate, tally: Ledger, read: Query) -> None:
        """Store."""
        self.gate = gate
        self.tally = tally
        self.read = read
        self._telling: set[asyncio.Task[None]] = set()

    def of(self, task: Task, attempt: int, budget: Budget) -> "RunAccess":
        """The access of one attempt."""
        return RunAccess(self, task, attempt, budget)

    async def spent_before(self, task_id: str) -> Usage:
        """What earlier attempts of a task have spent: by the record and by Redis, the larger.

        Redis may have been emptied, and the record may be some seconds late.
        """
        rows = await self.read(SPENT, {"id": task_id})
        known, counted = Usage.model_validate(rows[0]), await self.tally.spent(task_id)
        return Usage(
            **{
                name: _larger(getattr(known, name), getattr(counted, name))
                for name in Usage.model_fields
            }
        )

    async def spend(self, task: Task, attempt: int, call: ModelCall, *, counted: bool) -> None:
        """Tell the record, however long Redis is away; goes on when the run is cancelled."""
        telling = asyncio.create_task(self._tell(task, attempt, call, counted=counted))
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)
        await asyncio.shield(telling)

    async def close(self) -> None:
        """Wait for what is still being told."""
        await asyncio.gather(*self._telling, return_exceptions=True)

    async def _tell(self, task: Task, attempt: int, call: ModelCall, *, counted: bool) -> None:
        for failures in itertools.count():
            try:
                await self.tally.add(task, attempt, call, counted=counted)
                break
            except (Unavailable, Overloaded) as error:
                logger.warning(
                    "a model call of task %s waits to be told: %s", task.task_id, error,
                    extra={"event": "usage.waits", "task_id": task.task_id},
                )  # fmt: skip
                await asyncio.sleep(BACKOFF[min(failures, len(BACKOFF) - 1)])


class RunAccess:
    """Implements `context.ModelAccess` for one attempt."""

    __slots__ = ("_attempt", "_budget", "_desk", "_places", "_spent", "_task", "_under_way")

    def __init__(self, desk: ModelDesk, task: Task, attempt: int, budget: Budget) -> None:
        """Store; nothing is asked before the first call."""
        self._desk = desk
        self._task = task
        self._attempt = attempt
        self._budget = budget
        self._spent: Usage | None = None
        self._under_way: set[str] = set()
        self._places: dict[str, Place] = {}  # at the provider's gate, by call

    async def admit(self, call_id: str, provider: str, need: Need) -> Admission:
        """Raises ModelFailed where the budget does not hold it; Unavailable."""
        left = None
        place = self._places.setdefault(call_id, Place())
        if self._limited:
            if self._under_way:
                return Admission(ONE_AT_A_TIME)
            # From here on, also while the gate is asked: two that look at once would both go.
            self._under_way.add(call_id)
            try:
                left = await self._left(need)
                wait = await self._desk.gate.admit(provider, place)
            except BaseException:
                self._under_way.discard(call_id)
                raise
            if wait > 0:
                self._under_way.discard(call_id)
        else:
            wait = await self._desk.gate.admit(provider, place)
        return Admission(wait, left)

    async def tell(self, call_id: str, provider: str, news: News) -> None:
        """Pass it on. Should the call be made again, it stands in the queue as a new one."""
        await self._desk.gate.tell(provider, news, self._places.pop(call_id, Place()))

    async def spend(self, call: ModelCall) -> None:
        """Count it, and tell the record."""
        self._under_way.discard(call.id)
        if self._spent is not None:
            self._spent = self._spent.plus(call)
        await self._desk.spend(self._task, self._attempt, call, counted=self._limited)

    async def drop(self, call_id: str) -> None:
        """The next one may go."""
        self._under_way.discard(call_id)

    @property
    def _limited(self) -> bool:
        return self._budget != NO_BUDGET

    async def _left(self, need: Need) -> int | None:
        """Tokens that the budget still has for this call."""
        if self._budget.usd is not None and need.usd is None:
            raise ModelFailed(
                FailureKind.BUDGET_EXCEEDED,
                "no price is known for this model, so a budget in dollars cannot be kept;"
                " set Budget(tokens=...), or use a model that genai-prices knows",
            )
        if self._spent is None:
            # A first attempt, and no other before it: nothing can have been spent.
            first = self._attempt == 1
            self._spent = Usage() if first else await self._desk.spent_before(self._task.task_id)
        over = excess(self._budget, self._spent, need)
        if over is not None:
            raise ModelFailed(
                FailureKind.BUDGET_EXCEEDED, str(over), budget=over.as_json(),
                spent=self._spent.as_json(),
            )  # fmt: skip
        if self._budget.tokens is None:
            return None
        return self._budget.tokens - self._spent.tokens


def _larger(one: object, other: object) -> object:
    known = [each for each in (one, other) if each is not None]
    return max(known, default=None)  # type: ignore[type-var]  # numbers of one kind
