"""Puts values on the streams: one XADD each, or many in one write. Never trims."""

import asyncio
import itertools
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from orchestrator.event import Act
from orchestrator.streams.connection import Streams
from orchestrator.streams.message import check_size, dump, encode
from orchestrator.streams.names import Stream
from orchestrator.task import Task, new_id

CHUNK = 200  # entries in one write: large enough to be cheap, small enough not to stall others
AT_ONCE = 2  # writes under way: the next is packed while Redis takes the one before


class Publisher:
    """Writes for one producer, under its name."""

    def __init__(self, streams: Streams, *, producer: str) -> None:
        """Store."""
        self.streams = streams
        self.producer = producer
        self._sequence = itertools.count(1)
        # In order of their sequence: one that overtook another would look like a gap.
        self._auditing = asyncio.Lock()

    async def publish(self, task: Task, *, message_id: str | None = None) -> str:
        """Put a task on its lane; the entry's id. Raises Unavailable, Overloaded.

        After Unavailable the entry may be there all the same: publish again with the same task
        id, duplicates are one task.
        """
        await self._announce([task])
        return await self._add(*self._entry(task, dump(task), datetime.now(UTC), message_id))

    async def publish_many(self, tasks: Sequence[Task], *, limit: int | None = None) -> list[str]:
        """Put many tasks on their lanes, in order; the entries' ids.

        Raises PayloadTooLarge before anything is published where a message has more than `limit`
        bytes.
        """
        now = datetime.now(UTC)
        bodies = [dump(task) if limit is None else check_size(task, limit) for task in tasks]
        entries = [self._entry(task, body, now) for task, body in zip(tasks, bodies, strict=True)]
        await self._announce(tasks)
        return await self._add_many(entries)

    async def publish_data(
        self, stream: Stream, data: bytes, *, message_id: str | None = None
    ) -> str:
        """Put a JSON object on one of the streams; the entry's id."""
        fields = encode(data, message_id=message_id, at=datetime.now(UTC), producer=self.producer)
        return await self._add(self.streams.keys.of(stream), fields)

    async def publish_alerts(self, alerts: Sequence[tuple[Stream, str, bytes]]) -> None:
        """Put (stream, id, data) each on its stream, in order.

        After Unavailable or Overloaded some may be there: publish again, an id is stored once.
        """
        now = datetime.now(UTC)
        entries = [
            (
                self.streams.keys.of(stream),
                encode(data, message_id=alert_id, at=now, producer=self.producer),
            )
            for stream, alert_id, data in alerts
        ]
        await self._add_many(entries)

    async def audit(
        self,
        action: str,
        *,
        object_type: str,
        object_id: str,
        actor: str | None = None,
        **said: Any,
    ) -> None:
        """Say who did what; `said` is before, after, detail."""
        async with self._auditing:
            act = Act(
                action=action,
                actor=actor or self.producer,
                object_type=object_type,
                object_id=object_id,
                at=datetime.now(UTC),
                producer=self.producer,
                sequence=next(self._sequence),
                **said,
            )
            fields = encode(act, message_id=new_id(), at=act.at, producer=self.producer)
            await self._add(self.streams.keys.audit, fields)

    async def _add(self, key: str, fields: dict[str, Any]) -> str:
        (entry_id,) = await self.streams.add([(key, fields)])
        return entry_id

    async def _add_many(self, entries: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
        """Add them in order; after an error no more than what was under way."""
        if len(entries) <= CHUNK:
            return await self.streams.add(entries)
        entry_ids: list[str] = []
        writes: deque[asyncio.Task[list[str]]] = deque()
        try:
            for start in range(0, len(entries), CHUNK):
                if len(writes) == AT_ONCE:
                    entry_ids += await writes.popleft()
                chunk = entries[start : start + CHUNK]
                writes.append(asyncio.create_task(self.streams.add(chunk)))
                await asyncio.sleep(0)  # so that it goes out now
            while writes:
                entry_ids += await writes.popleft()
        finally:
            await asyncio.gather(*writes, return_exceptions=True)
        return entry_ids

    async def _announce(self, tasks: Sequence[Task]) -> None:
        """Tell recorders of queues other than the default, before anything is on them."""
        await self.streams.announce_queues({task.queue for task in tasks})

    def _entry(
        self, task: Task, body: bytes, at: datetime, message_id: str | None = None
    ) -> tuple[str, dict[str, Any]]:
        fields = encode(
            body,
            message_id=message_id or task.task_id,
            at=at,
            producer=self.producer,
            traceparent=task.traceparent,
        )
        return self.streams.keys.lane(task.queue, task.priority), fields
