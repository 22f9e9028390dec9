"""What a stream still holds of its past, and which entries: for readers who come back.

A stream forgets from its beginning; what is gone, Postgres has if the stream's group was through
with it. Both are told here by Redis' own counters, never guessed.
"""

from dataclasses import dataclass, replace
from typing import Any

from redis.exceptions import ResponseError

from orchestrator.streams.connection import Streams, is_missing_group, translated
from orchestrator.streams.message import Fields
from orchestrator.streams.names import Stream
from orchestrator.streams.position import BEGINNING, EntryId


@dataclass(frozen=True, slots=True, kw_only=True)
class Chapter:
    """One stream as it stands: its first and last entry, and how far its group has come."""

    first: EntryId | None = None  # None: it is empty
    last: EntryId = BEGINNING  # ever, whether or not it is still there
    deleted: EntryId = BEGINNING  # the highest id that was deleted one by one
    removed: int = 0  # entries that are gone from it, since it was made
    recorded: EntryId = BEGINNING  # the group has committed everything up to here

    def holds(self, position: EntryId) -> bool:
        """True when everything after `position` is still here.

        Also when it stands at the end. False where it cannot be told.
        """
        if position >= self.last:
            return position == self.last
        if position == BEGINNING and not self.removed:
            return True
        if self.first is None or self.deleted > position:
            return False
        return self.first.before <= position

    def was_reset(self, position: EntryId) -> bool:
        """True where a reader at `position` has read in a life of the stream before this one."""
        beyond = position > self.last
        # Nothing was ever removed, yet the entry that the reader has read is not here.
        unknown = self.first is not None and self.first.before > position and not self.removed
        return position != BEGINNING and (beyond or unknown)

    @property
    def gone(self) -> EntryId:
        """Everything that is missing lies up to here."""
        return max(self.first.before if self.first else self.last, self.deleted)


async def chapter_of(streams: Streams, stream: Stream) -> Chapter:
    """How the stream stands now. Raises Unavailable."""
    key = streams.keys.of(stream)
    with translated():
        try:
            # In one piece: an entry between the two would look like one that is missing.
            pipe = streams.commands.pipeline(transaction=True)
            pipe.xinfo_stream(key)
            pipe.xinfo_groups(key)
            info, groups = await pipe.execute()
            pending = await _first_pending(streams, key, stream, groups)
        except ResponseError as error:
            if is_missing_group(error):
                return Chapter()
            raise
    first = info["first-entry"]
    chapter = Chapter(
        first=EntryId.of(first[0].decode()) if first else None,
        last=EntryId.of(info["last-generated-id"].decode()),
        deleted=EntryId.of(info["max-deleted-entry-id"].decode()),
        removed=info["entries-added"] - info["length"],
    )
    recorded = _recorded(chapter, stream, groups, pending, length=info["length"])
    return replace(chapter, recorded=recorded)


async def page_of(
    streams: Streams, stream: Stream, *, after: EntryId, until: EntryId | None, count: int
) -> list[tuple[EntryId, Fields]]:
    """At most `count` entries after `after`, up to `until`, the oldest first."""
    with translated():
        found = await streams.commands.xrange(
            streams.keys.of(stream), min=f"({after}", max=str(until or "+"), count=count
        )
    return [(EntryId.of(entry_id.decode()), fields) for entry_id, fields in found]


async def _first_pending(
    streams: Streams, key: str, stream: Stream, groups: list[dict[str, Any]]
) -> EntryId | None:
    """The oldest entry that somebody has in hand."""
    for group in groups:
        if group["name"].decode() in stream.groups and group["pending"]:
            pending = await streams.commands.xpending(key, group["name"])
            if pending["pending"]:
                return EntryId.of(pending["min"].decode())
    return None


def _recorded(
    chapter: Chapter,
    stream: Stream,
    groups: list[dict[str, Any]],
    pending: EntryId | None,
    *,
    length: int,
) -> EntryId:
    group = next((each for each in groups if each["name"].decode() in stream.groups), None)
    if group is None:
        return BEGINNING
    delivered = EntryId.of(group["last-delivered-id"].decode())
    unread_all = chapter.first is None or delivered < chapter.first
    # Of a group that has never read Redis guesses, and takes what was trimmed for read.
    counted = group.get("entries-read") is not None
    if unread_all and counted and group.get("lag") == length:
        # It has read whatever was there before the first entry: none of the rest was trimmed.
        delivered = max(delivered, chapter.gone)
    return min(delivered, pending.before) if pending else delivered
