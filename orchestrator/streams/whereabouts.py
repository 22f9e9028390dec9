"""Where messages are, and how far a group has come: what the reconciler asks of Redis."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

from redis.exceptions import ResponseError

from orchestrator.streams.connection import Streams, is_missing_group, translated
from orchestrator.streams.names import ORCHESTRATOR, RECORDER
from orchestrator.task import TaskId

EntryId = tuple[int, int]
NEVER: EntryId = (2**64, 0)


class Where(StrEnum):
    """What Redis knows of a task's message."""

    HERE = "here"
    DELAYED = "delayed"
    ENDED = "ended"  # its end is on the results stream, or was
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Lookup:
    """One task to look for: where its last message was seen, if it was."""

    task_id: TaskId
    stream: str
    entry_id: str | None


async def look(streams: Streams, lookups: Sequence[Lookup], *, renewed: timedelta) -> list[Where]:
    """Where each is now, in one round trip for a hundred.

    `renewed`: a marker that lives longer than that was renewed by a worker within the lease.
    """
    found: list[Where] = []
    keys = streams.keys
    for start in range(0, len(lookups), 100):
        chunk = lookups[start : start + 100]
        where = [part for each in chunk for part in (each.stream, keys.marker(each.task_id))]
        what = [part for each in chunk for part in (each.task_id, each.entry_id or "")]
        reply = await streams.run(
            "look",
            [keys.delayed, *where],
            [ORCHESTRATOR, int(renewed.total_seconds() * 1000), *what],
        )
        found += [Where(each.decode()) for each in reply]
    return found


async def ends_of(streams: Streams, stream_keys: Sequence[str]) -> dict[str, EntryId]:
    """The last entry that each stream ever held; (0, 0) for one that does not exist."""
    return {key: await _last(streams, key) for key in stream_keys}


async def recorded_past(streams: Streams, marks: Mapping[str, EntryId]) -> bool:
    """True when the recorder has committed everything up to these marks.

    It acknowledges after its commit, so: nothing up to the mark is undelivered or pending. A
    stream that was lost since has nothing left to commit.
    """
    for key, mark in marks.items():
        if mark == (0, 0) or await _last(streams, key) < mark:
            continue
        if await _first_unacknowledged(streams, key) <= mark:
            return False
    return True


async def _last(streams: Streams, key: str) -> EntryId:
    with translated():
        try:
            info = await streams.commands.xinfo_stream(key)
        except ResponseError as error:
            if is_missing_group(error):
                return (0, 0)
            raise
    return _parse(info["last-generated-id"])


async def _first_unacknowledged(streams: Streams, key: str) -> EntryId:
    with translated():
        try:
            for info in await streams.commands.xinfo_groups(key):
                if info["name"] == RECORDER.encode():
                    # Either may be gone by the next command.
                    return await _first_of_group(streams, key, info)
        except ResponseError as error:
            if not is_missing_group(error):
                raise
    return (0, 0)


async def _first_of_group(streams: Streams, key: str, info: Mapping[str, Any]) -> EntryId:
    if info["pending"]:
        pending = await streams.commands.xpending(key, RECORDER)
        if pending["pending"]:
            return _parse(pending["min"])
    # Asked of the entries, not of the counters: those still count what was trimmed.
    following = await streams.commands.xrange(
        key, min=f"({info['last-delivered-id'].decode()}", count=1
    )
    return _parse(following[0][0]) if following else NEVER


def _parse(entry_id: bytes) -> EntryId:
    ms, _, sequence = entry_id.decode().partition("-")
    return int(ms), int(sequence)
