"""The marker of a task: who ended it first, from wherever; and what Redis alone knows of it."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from orchestrator.event import TaskEvent
from orchestrator.streams.connection import Streams, translated
from orchestrator.streams.message import dump
from orchestrator.streams.names import ORCHESTRATOR
from orchestrator.task import TaskId, TaskState, iso, new_id

# The message of a cancelled task may wait for its worker for days, and must then find the marker.
OUTSIDE_TTL = timedelta(days=7)


class Arbiter:
    """Asks and sets end markers. The workers' own completions set them in `finish.lua`."""

    def __init__(self, streams: Streams, *, ttl: timedelta) -> None:
        """Store. `ttl`: how long a marker outlives its task's last news."""
        self._streams = streams
        self._ttl = ttl

    async def end(
        self,
        event: TaskEvent,
        *,
        producer: str,
        unless_begun: tuple[str, str | None] | None = None,
    ) -> TaskState:
        """End a task that no worker ends (cancel, expiry); the state it is in afterwards.

        `unless_begun`: its stream and entry id; left alone while a worker has that in hand.
        Raises Unavailable.
        """
        keys = self._streams.keys
        stream, entry_id = unless_begun or (keys.tasks, None)
        before = await self._streams.run(
            "end",
            [keys.marker(event.task_id), keys.results, keys.delayed, keys.delayed_bodies, stream],
            [
                event.task_id,
                event.attempt,
                event.event.state.value,
                dump(event),
                int(max(self._ttl, OUTSIDE_TTL).total_seconds() * 1000),
                producer,
                iso(datetime.now(UTC)),
                new_id(),
                ORCHESTRATOR,
                entry_id or "",
            ],
        )
        return TaskState(before.decode()) if before else event.event.state

    async def end_of(self, task_id: TaskId) -> TaskState | None:
        """The state in which the task ended, as long as Redis remembers; None while it runs."""
        marker = await self._marker(task_id)
        state = marker.rpartition(":")[2] if marker else ""
        return TaskState(state) if state else None

    async def standing(self, task_id: TaskId) -> TaskState | None:
        """What Redis alone can tell of a task without a row; None: nothing."""
        marker = await self._marker(task_id)
        if marker is None:
            with translated():
                due = await self._streams.commands.zscore(self._streams.keys.delayed, task_id)
            return TaskState.SCHEDULED if due is not None else None
        state = marker.rpartition(":")[2]
        return TaskState(state) if state else TaskState.RUNNING

    async def forget(self, task_ids: Sequence[TaskId]) -> None:
        """Drop markers, so that these tasks may run again; the record says they never ended."""
        if task_ids:
            with translated():
                await self._streams.commands.delete(*map(self._streams.keys.marker, task_ids))

    async def _marker(self, task_id: TaskId) -> str | None:
        with translated():
            found: bytes | None = await self._streams.commands.get(
                self._streams.keys.marker(task_id)
            )
        return found.decode() if found is not None else None
