"""Turns any loss in Redis into delay: publishes again what has a row and no message.

A task is published again only if its message is gone, it is not delayed, and the recorder has since
committed past everything that the streams held at that observation; then the row is read again, and
Redis asked again: a server that lost its last writes may have brought back an older message of it.
So a slow recorder never causes a second execution. What was accepted while Redis had all that it
may hold is published here, too, as room becomes free; that is no loss.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from orchestrator.db.reconciling import Cursor, OpenTasks
from orchestrator.errors import DeadReason, PayloadTooLarge
from orchestrator.event import EventKind, TaskEvent
from orchestrator.record import OpenTask
from orchestrator.runtime.room import Room
from orchestrator.runtime.service import Stop, every
from orchestrator.streams.arbiter import Arbiter
from orchestrator.streams.message import check_size
from orchestrator.streams.publisher import Publisher
from orchestrator.streams.whereabouts import EntryId, Lookup, Where, ends_of, look, recorded_past
from orchestrator.task import Priority, Task

logger = logging.getLogger("aurora.reconciler")

SWEEP = 1.0  # seconds
PAGE = 2_000  # rows a sweep, so that a backlog of a million costs no more than a small one
HOLD = 10.0  # seconds that the one at work is it


@dataclass(frozen=True, slots=True)
class Observation:
    """Rows whose messages were gone, and how far the streams reached at that moment."""

    rows: tuple[OpenTask, ...]
    marks: dict[str, EntryId]


class Reconciler:
    """One is at work at a time; others wait for its hold to run out."""

    name = "reconciler"

    def __init__(
        self,
        tasks: OpenTasks,
        publisher: Publisher,
        arbiter: Arbiter,
        room: Room,
        *,
        grace: timedelta,
        renewed: timedelta,
        max_payload: int,
    ) -> None:
        """Store. `grace`: how young a row is left alone, as it may be on its way.

        `renewed`: what is left of a marker that a worker renewed within its lease.
        """
        self.tasks = tasks
        self.publisher = publisher
        self.streams = publisher.streams
        self.arbiter = arbiter
        self.room = room
        self.grace = grace
        self.renewed = renewed
        self.max_payload = max_payload
        self._stop = Stop()
        self._cursor: Cursor | None = None
        self._observed: Observation | None = None

    def stop(self) -> None:
        """Return after the sweep under way."""
        self._stop.set()

    async def run(self) -> None:
        """Sweep until stopped."""
        await every(SWEEP, self.sweep, stop=self._stop, name=self.name)

    async def sweep(self) -> None:
        """Look at some open rows; bring on again those that an earlier look found lost."""
        if not await self.streams.hold(self.name, self.publisher.producer, seconds=HOLD):
            return
        await self._end_overdue()
        room = await self.room.for_accepted()
        if not room:
            self._observed = None  # by then another look is due
            return
        if self._observed is not None:
            if not await recorded_past(self.streams, self._observed.marks):
                return  # the recorder is behind: nothing can be said yet
            # Forgotten first: should publishing fail half way, it begins with another look.
            rows, self._observed = self._observed.rows, None
            await self._bring_on(rows, most=room)
        self._observed = await self._observe()

    async def _observe(self) -> Observation | None:
        rows = await self.tasks.unpublished(older_than=self.grace, limit=PAGE)
        page = await self.tasks.page(after=self._cursor, older_than=self.grace, limit=PAGE)
        self._cursor = (page[-1].created_at, page[-1].task_id) if len(page) == PAGE else None
        candidates = list({row.task_id: row for row in (*rows, *page)}.values())
        if not candidates:
            return None
        keys = self.streams.keys
        lost = await self._lost(candidates)
        # After the look: whatever made a message vanish before it is on the streams by now, so
        # the recorder that has passed these marks has seen it.
        lanes = [lane for queue in await self.streams.queues() for lane in keys.lanes(queue)]
        marks = await ends_of(self.streams, [keys.results, *lanes])
        return Observation(lost, marks) if lost else None

    async def _lost(self, rows: Sequence[OpenTask]) -> tuple[OpenTask, ...]:
        """Those of which Redis has no message that could bring them on."""
        lookups = [self._lookup(row) for row in rows]
        places = await look(self.streams, lookups, renewed=self.renewed)
        gone = (Where.GONE, Where.ENDED)
        return tuple(row for row, place in zip(rows, places, strict=True) if place in gone)

    async def _bring_on(self, rows: Sequence[OpenTask], *, most: int) -> None:
        now = await self.tasks.again([row.task_id for row in rows])
        unchanged = [row for row in rows if now.get(row.task_id) == row]
        lost = (await self._lost(unchanged))[:most]
        messages = {row.task_id: found for row in lost if (found := await self._next_message(row))}
        if not messages:
            return
        # An end that never reached Postgres would keep the task from running again.
        await self.arbiter.forget(list(messages))
        self.room.given(len(messages))
        await self.publisher.publish_many(list(messages.values()))
        # No message of the others was ever seen: they waited for room, or for Redis.
        again = [messages[row.task_id] for row in lost if row.entry_id and row.task_id in messages]
        if late := len(messages) - len(again):
            logger.info(
                "published %d tasks that had been accepted before", late,
                extra={"event": "tasks.published_late"},
            )  # fmt: skip
        if again:
            logger.warning(
                "published %d tasks again whose messages were lost", len(again),
                extra={"event": "tasks.republished"},
            )  # fmt: skip
        for message in again:
            await self.publisher.audit(
                "task.republished",
                object_type="task",
                object_id=message.task_id,
                detail={"attempt": message.attempt, "agent": message.agent},
            )

    async def _end_overdue(self) -> None:
        for row in await self.tasks.overdue(grace=self.grace, limit=PAGE):
            by = row.cancel_requested_by
            kind = EventKind.CANCELLED if by else EventKind.EXPIRED
            error = {"type": kind.value, "message": f"cancelled by {by}" if by else "expired"}
            lookup = self._lookup(row)
            await self.arbiter.end(
                self._event(row, kind, error),
                producer=self.publisher.producer,
                # Begun in time is in time; the record may not know yet that it has begun.
                unless_begun=None if by else (lookup.stream, lookup.entry_id),
            )

    async def _next_message(self, row: OpenTask) -> Task | None:
        """The message that brings a task on again; None where there can be none, and it ends."""
        message = row.next_message()
        if message is None:
            await self._give_up(
                row,
                DeadReason.LOST,
                "its message was removed from the stream before it was recorded",
            )
            return None
        try:
            check_size(message, self.max_payload)
        except PayloadTooLarge as error:
            # Every reader would refuse it, and it would come back here for ever.
            await self._give_up(row, error.reason, str(error))
            return None
        return message

    async def _give_up(self, row: OpenTask, reason: DeadReason, why: str) -> None:
        error = {"type": reason.value, "message": why}
        await self.arbiter.end(
            self._event(row, EventKind.DEAD, error), producer=self.publisher.producer
        )

    def _event(self, row: OpenTask, kind: EventKind, error: dict[str, str]) -> TaskEvent:
        now = datetime.now(UTC)
        return TaskEvent(
            task_id=row.task_id, agent=row.agent, event=kind, at=now, attempt=row.attempt,
            error=error, finished_at=now,
        )  # fmt: skip

    def _lookup(self, row: OpenTask) -> Lookup:
        lane = self.streams.keys.lane(row.queue, Priority(row.priority))
        return Lookup(row.task_id, row.stream or lane, row.entry_id)
