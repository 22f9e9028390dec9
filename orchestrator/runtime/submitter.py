"""The way in: the row first and then the entry, or the entry alone; and what became of a task.

The API, the scheduler, `delay()` and agents that start agents all submit through this.
"""

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

from orchestrator.client import Receipt
from orchestrator.errors import Overloaded, TaskNotFound, Unavailable
from orchestrator.event import EventKind, TaskEvent
from orchestrator.runtime.group_commit import GroupCommit
from orchestrator.runtime.room import Room
from orchestrator.streams.arbiter import Arbiter
from orchestrator.streams.message import check_size
from orchestrator.streams.publisher import Publisher
from orchestrator.streams.tail import ResultTail
from orchestrator.task import Durability, Task, TaskId, TaskState

if TYPE_CHECKING:
    from orchestrator.tracing.spans import Sending, Tracing

logger = logging.getLogger("aurora.submitter")

RECENT = 10_000  # tasks that may not be recorded yet
LOOK_EVERY = 1.0  # seconds between looks at Postgres while waiting


class Store(Protocol):
    """What the submitter needs of the record (db.tasks.TaskStore)."""

    async def accept(self, tasks: Sequence[Task], *, actor: str) -> dict[TaskId, bool]: ...

    async def accept_new(self, asked: Sequence[tuple[Task, str]]) -> set[TaskId]: ...

    async def accept_in(
        self,
        session: Any,
        tasks: Sequence[Task],
        *,
        actor: str,
        publish: Callable[[Sequence[Task]], Coroutine[Any, Any, None]],
    ) -> dict[TaskId, bool]: ...

    async def state(self, task_id: TaskId) -> TaskState | None: ...

    async def ended(self, task_id: TaskId) -> TaskEvent | None: ...

    async def request_cancel(
        self, task_id: TaskId, *, actor: str
    ) -> tuple[TaskState, str, int]: ...


class TaskSubmitter:
    """Implements `client.Submitter`."""

    def __init__(
        self,
        publisher: Publisher,
        *,
        store: Callable[[], Store],
        tail: ResultTail,
        arbiter: Arbiter,
        durability: Durability,
        max_payload: int,
        room: Room,
        tracing: "Tracing | None" = None,
    ) -> None:
        """Store. `store` is called when the record is first needed: it loads SQLAlchemy."""
        self.publisher = publisher
        self.durability = durability
        self.max_payload = max_payload
        self.room = room
        self._store = store
        self._tail = tail
        self._arbiter = arbiter
        self._tracing = tracing
        self._group_commit = GroupCommit(
            commit=lambda asked: store().accept_new(asked), publish=self._publish
        )
        # Agents of tasks that the stream alone has accepted: the recorder may not know them yet.
        self._recent: OrderedDict[TaskId, str] = OrderedDict()

    async def submit(
        self, task: Task, *, durability: Durability | None = None, session: Any = None
    ) -> Receipt:
        """Accept one task. Raises TaskIdConflict, PayloadTooLarge, Unavailable, Overloaded."""
        if session is None:
            return (await self.submit_many([task], durability=durability))[0]
        if self._tracing is None:
            return await self._submit_in(session, task)
        with self._sending(self._tracing, [task]) as ((named,), _):
            return await self._submit_in(session, named)

    async def submit_many(
        self,
        tasks: Sequence[Task],
        *,
        durability: Durability | None = None,
        actor: str | None = None,
    ) -> list[Receipt]:
        """Accept many, in order; with durability `database` all or none. Raises as `submit`."""
        chosen = durability or self.durability
        if self._tracing is None or not tasks:
            return await self._submit(tasks, chosen, actor)
        with self._sending(self._tracing, tasks) as (named, sending):
            receipts = await self._submit(named, chosen, actor)
            if len(receipts) == 1:
                sending.sent(receipts[0].entry_id)
            return receipts

    async def _submit(
        self, tasks: Sequence[Task], chosen: Durability, actor: str | None
    ) -> list[Receipt]:
        await self._admit(len(tasks), chosen)
        if chosen is Durability.STREAM:
            entry_ids = await self.publisher.publish_many(tasks, limit=self.max_payload)
            self._remember(tasks)
            return [
                Receipt(task_id=task.task_id, entry_id=entry_id, state=_first_state(task))
                for task, entry_id in zip(tasks, entry_ids, strict=True)
            ]
        for task in tasks:
            check_size(task, self.max_payload)
        created, entries = await self._accept(tasks, actor=actor or self.publisher.producer)
        return [
            Receipt(
                task_id=task.task_id,
                created=created[task.task_id],
                entry_id=entries.get(task.task_id),
                state=_first_state(task),
            )
            for task in tasks
        ]

    async def close(self) -> None:
        """Wait until what is on its way to Postgres has been answered and published."""
        await self._group_commit.close()

    async def publish_accepted(self, tasks: Sequence[Task]) -> None:
        """Publish tasks whose rows are committed, as many as there is room for.

        The others wait in Postgres; the reconciler publishes them when there is.
        """
        if not tasks:
            return
        try:
            room = await self.room.for_accepted()
        except Unavailable as error:
            _deferred(len(tasks), error)
            return
        if room < len(tasks):
            _deferred(len(tasks) - room, "Redis has all that it may hold")
        self.room.given(min(room, len(tasks)))
        if self._tracing is None:
            await self._publish(tasks[:room])
        else:
            await self._publish_each(self._tracing, tasks[:room])

    async def ended(
        self,
        task_id: TaskId,
        *,
        since: str | None,
        timeout: float | None,
        recorded: bool,
    ) -> TaskEvent:
        """Wait for the task's end. Raises TimeoutError after `timeout` seconds."""
        async with asyncio.timeout(timeout):
            if recorded:
                return await self._recorded_end(task_id)
            return await self._first_news(task_id, since)

    async def state(self, task_id: TaskId) -> TaskState:
        """Where the task stands: its row, or while there is none what Redis knows."""
        with contextlib.suppress(Unavailable):
            found = await self._store().state(task_id)
            if found is not None and found.is_terminal:
                return found
            return await self._arbiter.end_of(task_id) or found or await self._unrecorded(task_id)
        return await self._arbiter.end_of(task_id) or await self._unrecorded(task_id)

    async def cancel(self, task_id: TaskId, *, actor: str) -> TaskState:
        """Ask for the task's end; the state it is in afterwards. Raises TaskNotFound.

        The request is a column and then the arbiter: with Redis down it is accepted, and the
        reconciler completes it.
        """
        try:
            state, agent, attempt = await self._store().request_cancel(task_id, actor=actor)
        except TaskNotFound:
            if task_id not in self._recent:
                raise
            state, agent, attempt = TaskState.QUEUED, self._recent[task_id], 1
        if state.is_terminal:
            return state
        event = TaskEvent(
            task_id=task_id,
            agent=agent,
            event=EventKind.CANCELLED,
            at=datetime.now(UTC),
            attempt=attempt,
            error={"type": "Cancelled", "message": f"cancelled by {actor}"},
        )
        try:
            return await self._arbiter.end(event, producer=self.publisher.producer)
        except (Unavailable, Overloaded) as error:
            logger.warning("cancel of %s waits for Redis: %s", task_id, error)
            return state

    async def _admit(self, tasks: int, durability: Durability) -> None:
        try:
            await self.room.admit(tasks)
        except Unavailable:
            if durability is Durability.STREAM:
                raise

    async def _accept(
        self, tasks: Sequence[Task], *, actor: str
    ) -> tuple[Mapping[TaskId, bool], Mapping[TaskId, str]]:
        """Commit the tasks and publish the new ones: which these are, and their entries."""
        if len(tasks) == 1:
            entries = await self._group_commit.accept(tasks[0], actor=actor)
            if entries is not None:
                return {tasks[0].task_id: True}, entries
        created = await self._store().accept(tasks, actor=actor)
        return created, await self._publish([task for task in tasks if created[task.task_id]])

    async def _publish(self, tasks: Sequence[Task]) -> Mapping[TaskId, str]:
        if not tasks:
            return {}
        try:
            entry_ids = await self.publisher.publish_many(tasks)
        except (Unavailable, Overloaded) as error:
            _deferred(len(tasks), error)
            return {}
        return {task.task_id: entry for task, entry in zip(tasks, entry_ids, strict=True)}

    async def _publish_each(self, tracing: "Tracing", tasks: Sequence[Task]) -> None:
        """Publish tasks that are no business of each other: those without a span get their own."""
        with contextlib.ExitStack() as spans:
            opened = {
                task.task_id: spans.enter_context(self._sending(tracing, [task]))
                for task in tasks
                if task.traceparent is None
            }
            named = {task_id: named[0] for task_id, (named, _) in opened.items()}
            entries = await self._publish([named.get(task.task_id, task) for task in tasks])
            for task_id, (_, sending) in opened.items():
                sending.sent(entries.get(task_id))

    def _sending(
        self, tracing: "Tracing", tasks: Sequence[Task]
    ) -> contextlib.AbstractContextManager[tuple[list[Task], "Sending"]]:
        keys = self.publisher.streams.keys
        lanes = {keys.lane(task.queue, task.priority) for task in tasks}
        return tracing.sending(
            tasks,
            destination=lanes.pop() if len(lanes) == 1 else keys.tasks,
            producer=self.publisher.producer,
        )

    async def _submit_in(self, session: Any, task: Task) -> Receipt:
        """Accept a task in the caller's transaction."""
        check_size(task, self.max_payload)
        await self._admit(1, Durability.DATABASE)
        created = await self._store().accept_in(
            session,
            [task],
            actor=self.publisher.producer,
            publish=self.publish_accepted,
        )
        return Receipt(
            task_id=task.task_id, created=created[task.task_id], state=_first_state(task)
        )

    async def _first_news(self, task_id: TaskId, since: str | None) -> TaskEvent:
        """From the stream when it says so, from the record when the stream no longer does."""
        try:
            heard = await self._tail.expect(task_id, since=since)
        except (Unavailable, Overloaded):
            return await self._recorded_end(task_id)
        look = 0.0 if since is None else LOOK_EVERY
        try:
            while True:
                done, _ = await asyncio.wait({heard}, timeout=look)
                if done:
                    return heard.result()
                with contextlib.suppress(Unavailable):
                    if (found := await self._store().ended(task_id)) is not None:
                        return found
                look = LOOK_EVERY
        finally:
            self._tail.forget(task_id, heard)

    async def _recorded_end(self, task_id: TaskId) -> TaskEvent:
        pause = timedelta(milliseconds=10)
        while True:
            with contextlib.suppress(Unavailable):
                if (found := await self._store().ended(task_id)) is not None:
                    return found
            await asyncio.sleep(pause.total_seconds())
            pause = min(pause * 1.5, timedelta(seconds=0.5))

    async def _unrecorded(self, task_id: TaskId) -> TaskState:
        """Known to Redis only: begun, delayed, or not at all."""
        found = await self._arbiter.standing(task_id)
        if found is not None:
            return found
        if task_id in self._recent:
            return TaskState.QUEUED
        raise TaskNotFound(task_id)

    def _remember(self, tasks: Sequence[Task]) -> None:
        self._recent.update({task.task_id: task.agent for task in tasks[-RECENT:]})
        while len(self._recent) > RECENT:
            self._recent.popitem(last=False)


def _deferred(tasks: int, why: object) -> None:
    logger.warning(
        "accepted %d tasks, to be published later: %s", tasks, why,
        extra={"event": "publish.deferred"},
    )  # fmt: skip


def _first_state(task: Task) -> TaskState:
    later = task.run_at is not None and task.run_at > datetime.now(UTC)
    return TaskState.SCHEDULED if later else TaskState.QUEUED
