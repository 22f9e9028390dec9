"""Tells the record of each model call, and keeps what a task with a budget has spent."""

from datetime import timedelta
from decimal import ROUND_CEILING, Decimal

from orchestrator.event import EventKind, TaskEvent
from orchestrator.streams.connection import Streams, translated
from orchestrator.streams.message import dump
from orchestrator.task import Task, iso, new_id
from orchestrator.usage import ModelCall, Usage

NANO = Decimal("1e-9")  # of a dollar: whole numbers, which Redis adds exactly


class Tally:
    """One per worker."""

    def __init__(self, streams: Streams, *, worker: str, ttl: timedelta) -> None:
        """Store. `ttl`: how long a task's sum is kept after its last call."""
        self._streams = streams
        self._worker = worker
        self._ttl = int(ttl.total_seconds() * 1000)

    async def add(self, task: Task, attempt: int, call: ModelCall, *, counted: bool) -> None:
        """Tell of a call; `counted`: the task has a budget. Raises Unavailable, Overloaded."""
        keys = self._streams.keys
        event = TaskEvent(
            task_id=task.task_id,
            agent=task.agent,
            event=EventKind.USAGE,
            at=call.at,
            attempt=attempt,
            worker=self._worker,
            usage=call.model_dump(mode="json", exclude_none=True),
        )
        cost = (call.cost_usd or Decimal(0)) / NANO
        await self._streams.run(
            "spend",
            [keys.results, keys.spent(task.task_id)],
            [
                new_id(), dump(event), self._worker, iso(call.at), self._ttl if counted else 0,
                1, call.input_tokens, call.output_tokens, call.cached_tokens, call.tool_calls,
                int(cost.to_integral_value(ROUND_CEILING)), int(call.cost_usd is None),
            ],
        )  # fmt: skip

    async def spent(self, task_id: str) -> Usage:
        """What Redis knows of a task with a budget. Raises Unavailable."""
        with translated():
            found = await self._streams.commands.hgetall(self._streams.keys.spent(task_id))
        said = {name.decode(): int(value) for name, value in found.items()}
        priced = said.get("requests", 0) > said.get("unpriced_requests", 0)
        nano = said.pop("nano_usd", 0)
        return Usage(**said, cost_usd=nano * NANO if priced else None)
