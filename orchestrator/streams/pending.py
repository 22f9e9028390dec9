"""Entries that a consumer was given and has not acknowledged, as the server counts them."""

from typing import NamedTuple

from redis.exceptions import ResponseError

from orchestrator.streams.connection import Streams, is_missing_group, translated


class Entry(NamedTuple):
    """One delivery; `times`: how often the entry was delivered by then."""

    stream: str
    entry_id: str
    times: int

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from every other: stream and entry."""
        return self.stream, self.entry_id


async def pending_after(
    streams: Streams, stream: str, entry_id: str | None, *, group: str, consumer: str, most: int
) -> list[Entry]:
    """This consumer's, the first `most` past that entry (None: of all). Raises Unavailable."""
    try:
        with translated():
            found = await streams.commands.xpending_range(
                stream, group, min=f"({entry_id}" if entry_id else "-", max="+", count=most,
                consumername=consumer,
            )  # fmt: skip
    except ResponseError as error:
        if is_missing_group(error):
            return []  # who made it anew has everything to deliver once more
        raise
    return [
        Entry(stream, each["message_id"].decode(), int(each["times_delivered"])) for each in found
    ]
