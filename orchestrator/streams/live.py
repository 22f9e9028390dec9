"""The live feed of some streams: one plain XREAD tail a process, fanned out to bounded queues.

No group and nothing pending: every process sees every entry. The API's WebSocket, its SSE and the
dashboard subscribe. Who subscribes hears what comes from then on; the past is `past`'s.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import aclosing
from enum import StrEnum
from typing import Generic, TypeVar

from orchestrator.errors import MalformedMessage, Overloaded, Unavailable
from orchestrator.streams.channel import Channel
from orchestrator.streams.connection import Streams
from orchestrator.streams.following import Entry, follow
from orchestrator.streams.message import Fields
from orchestrator.streams.names import Stream
from orchestrator.streams.past import Chapter, chapter_of
from orchestrator.streams.position import EntryId, Position
from orchestrator.streams.told import Lately, LiveMessage, Reading, Readings, Recent

logger = logging.getLogger("aurora.live")

T = TypeVar("T")

MOST_MESSAGES = 256  # that wait for one client: two seconds of a hundred alerts a second
MOST_BYTES = 1024 * 1024  # of their JSON
MOST_CLIENTS = 1000  # a process; each costs about 100 kB
CHUNK = 64  # entries between two turns of the clients: a quarter of what a queue holds
# Seconds that clients whose queues fill up are given after a chunk, and how often: when this
# process was held up they all are behind, and none is slow. One that is costs the others 0.1 s.
TURN, TURNS = 0.005, 10
GATHER = 0.05  # seconds between two takes of a client


class Ended(StrEnum):
    """Why a subscription gives nothing more; its reader comes back with its position."""

    SLOW = "slow"  # it did not read as fast as the stream grew
    LOST = "lost"  # the stream was trimmed or reset while this process could not read it
    STOPPING = "stopping"


Read = Callable[[str, str, Fields], Reading[T] | None]


class LiveTail(Generic[T]):
    """Reads from the first subscription on, and stops with the last."""

    def __init__(
        self,
        streams: Streams,
        sources: Mapping[str, Stream],
        *,
        read: Read[T],
        coalesce: Callable[[T], Hashable] | None = None,
        most_clients: int = MOST_CLIENTS,
    ) -> None:
        """Store. `sources`: names for the streams. `read` may raise MalformedMessage.

        `coalesce`: of values with the same key only the last one waits in a queue.
        """
        self.streams = streams
        self.sources = dict(sources)
        self.read = read
        self.coalesce = coalesce
        self.most_clients = most_clients
        self.dropped = 0  # messages that a slow client did not take
        self.recent = Recent()
        self._readings: Readings[T] = Readings()
        self.position = Position({})
        self.lately: Lately[T] = Lately(self.position)
        self._names = {streams.keys.of(stream): name for name, stream in sources.items()}
        self._subscriptions: set[Subscription[T]] = set()
        self._reading: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._reader: Channel | None = None
        self._stopping = False

    @property
    def is_reading(self) -> bool:
        """True while `position` and `lately` follow the streams."""
        return self._reading is not None

    @property
    def clients(self) -> int:
        return len(self._subscriptions)

    async def subscribe(self, wants: Callable[[T], bool] | None = None) -> "Subscription[T]":
        """Everything from now on that `wants` says yes to. Raises Overloaded, Unavailable.

        Leave it with `close()`.
        """
        if self.clients >= self.most_clients:
            raise Overloaded(f"{self.clients} live clients are connected", retry_after=5)
        found = Subscription(self, wants or (lambda _: True))
        # Before the wait, so that the reading does not end in the meantime.
        self._subscriptions.add(found)
        try:
            async with self._starting:
                if self._reading is None and not self._stopping:
                    chapters = await self._chapters()
                    self.position = Position({name: each.last for name, each in chapters.items()})
                    self.lately = Lately(self.position)
                    self._reading = asyncio.create_task(self._run(), name="aurora live tail")
        except BaseException:
            found.close()
            raise
        found.begin(self.position)
        if self._stopping:
            found.end(Ended.STOPPING)
        return found

    def stop(self) -> None:
        """End every subscription at once; `close` waits for the read under way."""
        self._stopping = True
        self._end_all(Ended.STOPPING)

    async def close(self) -> None:
        """Stop, at most a second later."""
        self.stop()
        if self._reading is not None:
            await self._reading

    def left(self, subscription: "Subscription[T]") -> None:
        """A subscription is over."""
        self._subscriptions.discard(subscription)

    def reading_of(self, source: str, entry_id: str, fields: Fields) -> Reading[T] | None:
        """What an entry says; None where it says nothing to us."""
        # Read once for all who come back for it: after a storm that is everybody, at one time.
        if (known := self._readings.get(source, entry_id)) is not None:
            return known
        try:
            found = self.read(source, entry_id, fields)
        except MalformedMessage:
            return None  # its own consumer sets it aside; a feed only listens
        if found is not None:
            self._readings.keep(source, entry_id, found)
        return found

    async def _run(self) -> None:
        reader = self._reader = self._reader or self.streams.reader()
        try:
            ids = {key: str(self.position[name]) for key, name in self._names.items()}
            async with aclosing(follow(reader, ids, stopping=self._is_done)) as reads:
                async for found in reads:
                    if found.unsure and not await self._in_one_piece():
                        # Who comes back is told what is missing, and we begin at the end again.
                        self._end_all(Ended.LOST)
                        return
                    for start in range(0, len(found.entries), CHUNK):
                        self._hear(found.entries[start : start + CHUNK])
                        await self._give_turns()
        except Exception:
            logger.exception("the live tail failed", extra={"event": "live.failed"})
            self._end_all(Ended.LOST)
        finally:
            # No await between the last look at the subscriptions and here.
            self._reading = None

    def _hear(self, entries: Sequence[Entry]) -> None:
        for each in entries:
            source = self._names[each.key]
            entry_id = EntryId.of(each.entry_id)
            self.position = self.position.moved(source, entry_id)
            reading = self.reading_of(source, each.entry_id, each.fields)
            if reading is None or not self.recent.is_first(reading.id, source, entry_id):
                continue
            message = LiveMessage(source, entry_id, self.position, reading)
            self.lately.keep(message)
            for subscription in list(self._subscriptions):
                subscription.offer(message)

    def _is_done(self) -> bool:
        return self._stopping or not self._subscriptions

    async def _give_turns(self) -> None:
        # One turn of the loop: who is not held up by its network takes all that waits for it.
        await asyncio.sleep(0)
        for _ in range(TURNS):
            if not any(each.is_filling for each in self._subscriptions):
                break
            await asyncio.sleep(TURN)

    async def _in_one_piece(self) -> bool:
        """False where something after our position may be gone unread."""
        try:
            chapters = await self._chapters()
        except (Unavailable, Overloaded):
            return False
        return all(each.holds(self.position[name]) for name, each in chapters.items())

    async def _chapters(self) -> dict[str, Chapter]:
        return {
            name: await chapter_of(self.streams, stream) for name, stream in self.sources.items()
        }

    def _end_all(self, why: Ended) -> None:
        for each in list(self._subscriptions):
            each.end(why)


class Subscription(Generic[T]):
    """One client's queue, which ends when it can no longer be complete."""

    def __init__(self, tail: LiveTail[T], wants: Callable[[T], bool]) -> None:
        """Store; `LiveTail.subscribe` makes these."""
        self._tail = tail
        self._wants = wants
        self._waiting: OrderedDict[Hashable, LiveMessage[T]] = OrderedDict()
        self._bytes = 0
        self._news = asyncio.Event()
        self._hurry = asyncio.Event()
        self._next_at = 0.0  # on the monotonic clock
        self._taken: Position | None = None
        self.ended: Ended | None = None
        self.began = Position({})

    def begin(self, position: Position) -> None:
        """Hear everything after `position`."""
        self.began = self._taken = position

    @property
    def position(self) -> Position:
        """Where to go on: everything that it wants up to here was given out."""
        if not self._waiting and self.ended is None:
            self._taken = self._tail.position
        assert self._taken is not None, "subscribe() begins it"  # noqa: S101 - a mistake of ours
        return self._taken

    @property
    def is_filling(self) -> bool:
        return 2 * len(self._waiting) > MOST_MESSAGES or 2 * self._bytes > MOST_BYTES

    def offer(self, message: LiveMessage[T]) -> None:
        """Queue it if it is wanted; never waits."""
        if self._taken is None or self.ended or not self._wants(message.reading.value):
            return
        tail = self._tail
        key: Hashable = (message.source, message.entry_id)
        if tail.coalesce is not None:
            key = tail.coalesce(message.reading.value)
            if key in self._waiting:
                self._bytes -= len(self._waiting.pop(key).reading.body)
        self._waiting[key] = message
        self._bytes += len(message.reading.body)
        if len(self._waiting) > MOST_MESSAGES or self._bytes > MOST_BYTES:
            tail.dropped += len(self._waiting)
            self.end(Ended.SLOW)
        elif self.is_filling:
            self._hurry.set()
        self._news.set()

    def end(self, why: Ended) -> None:
        """Give nothing more out; the first reason stays."""
        if self.ended is None:
            self.ended = why
            self._waiting.clear()
            self._bytes = 0
        self._news.set()
        self._hurry.set()

    async def take(self, timeout: float | None = None) -> list[LiveMessage[T]]:
        """All that waits, at least one; none after `timeout` seconds, and at the end (`ended`).

        At once after a silence; then at most every GATHER seconds, so that what a thousand clients
        cost grows with them rather than with the alerts, too.
        """
        if not self._waiting and self.ended is None:
            self._news.clear()
            if not await _set_within(self._news, timeout):
                return []
        pause = self._next_at - time.monotonic()
        if pause > 0 and not self.is_filling and self.ended is None:
            self._hurry.clear()
            await _set_within(self._hurry, pause)
        self._next_at = time.monotonic() + GATHER
        found = list(self._waiting.values())
        self._waiting.clear()
        self._bytes = 0
        if found:
            self._taken = found[-1].position
        return found

    def close(self) -> None:
        """Nobody reads it any more; may be called twice."""
        self.end(Ended.STOPPING)
        self._tail.left(self)


async def _set_within(event: asyncio.Event, seconds: float | None) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False
