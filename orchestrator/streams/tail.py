"""A plain XREAD tail of the results stream: who waits for a task hears of its end at once.

No group and nothing pending: every process sees every event. One tail a process.
"""

import asyncio
import logging
from collections import OrderedDict, defaultdict

from orchestrator.errors import MalformedMessage
from orchestrator.event import EventKind, TaskEvent
from orchestrator.streams.connection import Streams, translated
from orchestrator.streams.following import PAGE, follow, order
from orchestrator.streams.message import Fields, decode, decode_event
from orchestrator.task import TaskId

logger = logging.getLogger("aurora.tail")

PAGES = 5  # of the past that one wait looks through
RECENT = 10_000  # ends kept for waits that begin after them
RECENT_BYTES = 32 * 1024 * 1024  # of their entries
# Compared, not looked up: a stranger's `event` may be anything that JSON can say.
ENDS = tuple(kind for kind in EventKind if kind.state.is_terminal)


class ResultTail:
    """Futures by task id, completed from the stream. Starts reading at the first wait."""

    def __init__(self, streams: Streams) -> None:
        """Store."""
        self._streams = streams
        self._waiting: dict[TaskId, list[asyncio.Future[TaskEvent]]] = defaultdict(list)
        self._reading: asyncio.Task[None] | None = None
        self._heard_from = (0, 0)  # ends of entries after this one are in `_recent`, or were heard
        self._recent: OrderedDict[TaskId, tuple[TaskEvent, int]] = OrderedDict()  # with its bytes
        self._recent_bytes = 0
        self._starting = asyncio.Lock()
        self._stopping = False

    async def expect(self, task_id: TaskId, *, since: str | None) -> "asyncio.Future[TaskEvent]":
        """A future of the task's end. `since`: an entry id that is older than the end, if known.

        Without it, or when the stream no longer reaches back that far, only ends from now on are
        certain to be heard.
        """
        future: asyncio.Future[TaskEvent] = asyncio.get_running_loop().create_future()
        async with self._starting:
            await self._start(since)
        if task_id in self._recent:
            future.set_result(self._recent[task_id][0])
            return future
        self._waiting[task_id].append(future)
        if since and order(since) < self._heard_from:
            past = await self._find_past(task_id, since=since)
            if past is not None and not future.done():
                future.set_result(past)
        return future

    async def _start(self, since: str | None) -> None:
        if self._reading is None:
            # The millisecond of an entry on another stream of the same server: the end is later.
            begin = f"{since.partition('-')[0]}-0" if since else await self._last_id()
            self._heard_from = order(begin)
            self._reading = asyncio.create_task(self._read(begin), name="aurora result tail")

    def forget(self, task_id: TaskId, future: "asyncio.Future[TaskEvent]") -> None:
        """Nobody waits on this future any more."""
        waiting = self._waiting.get(task_id, [])
        if future in waiting:
            waiting.remove(future)
        if not waiting:
            self._waiting.pop(task_id, None)

    async def _find_past(self, task_id: TaskId, *, since: str) -> TaskEvent | None:
        """The task's end among the events not older than the entry `since`, if still there."""
        start = f"{since.partition('-')[0]}-0"
        for _ in range(PAGES):  # what lies further on, the record knows
            with translated():
                page = await self._streams.commands.xrange(
                    self._streams.keys.results, min=start, count=PAGE
                )
            for entry_id, fields in page:
                event = self._end(entry_id.decode(), fields)
                if event and event.task_id == task_id:
                    return event
            if len(page) < PAGE:
                return None
            start = f"({page[-1][0].decode()}"
        return None

    async def stop(self) -> None:
        """Stop reading; waits for the read under way, at most about a second."""
        self._stopping = True
        if self._reading is not None:
            await self._reading

    async def _read(self, since: str) -> None:
        positions = {self._streams.keys.results: since}
        reader = self._streams.reader()
        async for read in follow(reader, positions, stopping=lambda: self._stopping):
            for each in read.entries:
                if (event := self._end(each.entry_id, each.fields)) is not None:
                    self._hear(event, each.entry_id, len(each.fields[b"data"]))

    async def _last_id(self) -> str:
        with translated():
            last = await self._streams.commands.xrevrange(self._streams.keys.results, count=1)
        return last[0][0].decode() if last else "0-0"

    def _hear(self, event: TaskEvent, entry_id: str, size: int) -> None:
        for future in self._waiting.pop(event.task_id, ()):
            if not future.done():
                future.set_result(event)
        _, replaced = self._recent.pop(event.task_id, (None, 0))
        self._recent[event.task_id] = event, size
        self._recent_bytes += size - replaced
        while len(self._recent) > RECENT or self._recent_bytes > RECENT_BYTES:
            _, (_, dropped) = self._recent.popitem(last=False)
            self._recent_bytes -= dropped
            self._heard_from = order(entry_id)  # what is older may have been dropped

    def _end(self, entry_id: str, fields: Fields) -> TaskEvent | None:
        """The end that this entry tells of; None of anything else, which nobody here waits for."""
        key = self._streams.keys.results
        try:
            message = decode(fields, stream=key, entry_id=entry_id)
            return decode_event(message) if message.data.get("event") in ENDS else None
        except MalformedMessage:
            return None  # the recorder sets it aside; a tail only listens
