"""Everything on some streams since a position, then what comes: for clients that come back.

The past is read at the client's own pace, from the stream or from the record, and the live tail is
joined where the past ends. What neither has is a gap that is told. Nothing is lost at the seam and
nothing comes twice: each stream's past is read up to where the tail stood when it was joined.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from orchestrator.streams.live import Ended, LiveTail, Subscription
from orchestrator.streams.past import Chapter, chapter_of, page_of
from orchestrator.streams.position import EntryId, Position
from orchestrator.streams.told import LiveMessage, Reading

T = TypeVar("T")

PAGE = 200  # entries of the past at a time: at worst 20 ms in which nobody else has a turn
HEARTBEAT = 15.0  # seconds; proxies cut what is silent for 30 or 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Between these positions something is missing; `position` is where to go on."""

    after: Position
    position: Position
    reason: str


@dataclass(frozen=True, slots=True)
class Here:
    """Nothing is missing up to this position, and from here on it is live."""

    position: Position
    joined: bool = False  # said once, where the past ends


Told = LiveMessage[T] | Gap | Here
# (source, after, until, at most) -> (entry id, what it says), in the stream's order
Recorded = Callable[[str, EntryId, EntryId, int], Awaitable[list[tuple[EntryId, Reading[T]]]]]


@dataclass(frozen=True, slots=True)
class _Page(Generic[T]):
    """A piece of one stream's past; everything up to `complete` is in it, or told as a gap."""

    found: list[tuple[EntryId, Reading[T]]]
    complete: EntryId
    more: bool
    gap: str | None = None


class Feed(Generic[T]):
    """One tail's past and present, for any number of clients."""

    def __init__(self, tail: LiveTail[T], *, name: str, recorded: Recorded[T] | None) -> None:
        """Store. `name`: what a message carries. `recorded`: asked for what the stream has lost."""
        self.tail = tail
        self.name = name
        self.recorded = recorded

    def position_of(self, text: str) -> Position:
        """What a client kept. Raises MalformedMessage."""
        return Position.of(text, list(self.tail.sources))

    async def follow(
        self,
        since: Position | None,
        wants: Callable[[T], bool],
        *,
        heartbeat: float = HEARTBEAT,
    ) -> AsyncGenerator[list[Told[T]], None]:
        """Everything after `since` that is wanted, or a gap, then live; `Here` when nothing comes.

        What comes together is told together, in one list. Ends after a gap when the client was too
        slow or the tail lost its place, and without one when this process stops. Raises Overloaded,
        Unavailable.
        """
        at = await self._settled(since) if since is not None and since.is_moment else since
        near = at is None
        while at is not None and not near and not self._remembers(at):
            told, at, near = await self._past(at, until=None, wants=wants)
            if told:
                yield told
        with closing(await self.tail.subscribe(wants)) as subscription:
            at, began = at or subscription.began, subscription.began
            # Nothing else runs between the subscription's beginning and here.
            if self._remembers(at):
                if told := self._new(self.tail.lately.after(at, wants), at):
                    yield told
                at = at.or_later(began)
            while any(at[name] < began[name] for name in at):
                told, at, _ = await self._past(at, until=began, wants=wants)
                if told:
                    yield told
            yield [Here(at, joined=True)]
            async for told in self._live(subscription, at, heartbeat):
                yield told

    async def _settled(self, moment: Position) -> Position:
        """A moment as a place on each stream: none before its beginning nor after its end."""
        for name, stream in self.tail.sources.items():
            chapter = await chapter_of(self.tail.streams, stream)
            whole = chapter.first is not None and not chapter.removed
            first = chapter.first.before if chapter.first and whole else moment[name]
            moment = moment.moved(name, min(max(moment[name], first), chapter.last))
        return moment

    async def _live(
        self, subscription: Subscription[T], at: Position, heartbeat: float
    ) -> AsyncGenerator[list[Told[T]], None]:
        while subscription.ended is None:
            messages = await subscription.take(heartbeat)
            if told := self._new(messages, at):
                at = told[-1].position
                yield told
            elif not messages and subscription.ended is None:
                at = at.or_later(subscription.position)
                yield [Here(at)]
        if subscription.ended is not Ended.STOPPING:
            at = at.or_later(subscription.position)
            yield [Gap(after=at, position=at, reason=_WHY[subscription.ended])]

    def _remembers(self, at: Position) -> bool:
        tail = self.tail
        # Not where a client stands beyond all that there is: its stream was reset.
        is_within = tail.is_reading and all(at[name] <= tail.position[name] for name in at)
        return is_within and tail.lately.reaches(at)

    def _new(self, messages: Sequence[LiveMessage[T]], at: Position) -> list[Told[T]]:
        """Those that the past has not covered, which may have read further than the tail had."""
        told: list[Told[T]] = []
        for message in messages:
            if message.entry_id > at[message.source]:
                at = at.or_later(message.position)
                same = at is message.position
                told.append(message if same else replace(message, position=at, texts={}))
        return told

    async def _past(
        self, at: Position, *, until: Position | None, wants: Callable[[T], bool]
    ) -> tuple[list[Told[T]], Position, bool]:
        """A page of each stream, merged: what to tell, up to where, and whether that is the end."""
        pages = {
            name: await self._page(name, at[name], until[name] if until else None) for name in at
        }
        # Of a stream that gave less than there is, nothing later may be told by another before.
        bounds = [each.complete for each in pages.values() if each.more and each.gap is None]
        bound = min(bounds, default=None)
        merged = sorted(
            (entry_id, name, reading)
            for name, page in pages.items()
            for entry_id, reading in page.found
            if bound is None or entry_id <= bound
        )
        told: list[Told[T]] = []
        for name, page in pages.items():
            if page.gap is not None:
                beyond = at.moved(name, page.complete)
                told.append(Gap(after=at, position=beyond, reason=page.gap))
                at = beyond
        for entry_id, name, reading in merged:
            at = at.moved(name, entry_id)
            if wants(reading.value) and self.tail.recent.is_first(reading.id, name, entry_id):
                told.append(LiveMessage(name, entry_id, at, reading))
        for name, page in pages.items():
            if page.gap is None:
                at = at.moved(name, max(at[name], min(page.complete, bound or page.complete)))
        return told, at, not any(page.more for page in pages.values())

    async def _page(self, name: str, after: EntryId, until: EntryId | None) -> _Page[T]:
        if until is not None and after >= until:
            return _Page([], after, more=False)
        stream = self.tail.sources[name]
        entries = await page_of(self.tail.streams, stream, after=after, until=until, count=PAGE)
        # Asked after the entries: what is still there now was there then.
        chapter = await chapter_of(self.tail.streams, stream)
        if not chapter.holds(after):
            return await self._lost_page(name, after, chapter)
        found = [
            (entry_id, reading)
            for entry_id, fields in entries
            if (reading := self.tail.reading_of(name, str(entry_id), fields)) is not None
        ]
        more = len(entries) == PAGE
        # Up to `until` the tail has read the stream; there may be nothing of it at the very end.
        last = entries[-1][0] if entries else after
        return _Page(found, last if more or until is None else until, more=more)

    async def _lost_page(self, name: str, after: EntryId, chapter: Chapter) -> _Page[T]:
        """What the stream has lost, from the record as far as that goes."""
        if after > chapter.last or chapter.was_reset(after):
            ahead = chapter.last if after > chapter.last else chapter.gone
            return _Page([], ahead, more=True, gap=_RESET)
        if self.recorded is None:
            return _Page([], chapter.gone, more=True, gap=_TRIMMED)
        known = min(chapter.recorded, chapter.gone)
        if known <= after:
            return _Page([], chapter.gone, more=True, gap=_UNRECORDED)
        found = await self.recorded(name, after, known, PAGE)
        full = len(found) == PAGE
        return _Page(found, found[-1][0] if full else known, more=True)


_RESET = "the stream was reset, or ends before this position"
_TRIMMED = "the stream no longer reaches back that far"
_UNRECORDED = "gone from the stream and not recorded yet; ask GET /api/v1/alerts in a while"
_WHY = {
    Ended.SLOW: "you read too slowly; come back with last_id and nothing is lost",
    Ended.LOST: "the server lost its place on the stream; come back with last_id",
}
