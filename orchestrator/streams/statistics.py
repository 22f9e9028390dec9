"""How long the streams are and how far their groups have come; /metrics and /readyz ask."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.streams.connection import Streams, translated
from orchestrator.streams.names import ALERTS, AUDIT, CPS_ALERTS, RESULTS, STREAMS


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupStatistics:
    """One consumer group of one stream. Counts are entries."""

    group: str
    pending: int  # delivered, not acknowledged
    backlog: int  # not delivered yet
    oldest_pending: float  # seconds since the oldest pending entry was added; 0 without one


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamStatistics:
    """One stream that exists."""

    key: str
    length: int  # entries
    groups: tuple[GroupStatistics, ...]


async def read(streams: Streams) -> list[StreamStatistics]:
    """Every stream and lane that exists, in three round trips. Raises Unavailable."""
    with translated():
        queues = [each.decode() for each in await streams.commands.smembers(streams.keys.queues)]
        keys = [streams.keys.of(each) for each in (ALERTS, CPS_ALERTS, RESULTS, AUDIT)]
        for queue in ("default", *sorted(queues)):
            keys += streams.keys.lanes(queue)
        pipe = streams.commands.pipeline(transaction=False)
        for key in keys:
            pipe.xlen(key)
            pipe.xinfo_groups(key)
        # A lane that nobody has used yet answers "no such key": an error in its place, no more.
        replies = await pipe.execute(raise_on_error=False)
        seconds, microseconds = await streams.commands.time()
        found = {
            key: (length, groups)
            for key, length, groups in zip(keys, replies[::2], replies[1::2], strict=True)
            if isinstance(groups, list) and isinstance(length, int)
        }
        oldest = await _oldest(streams, found)
    now = seconds + microseconds / 1e6
    return [
        StreamStatistics(
            key=key,
            length=length,
            groups=tuple(_group(key, length, each, oldest, now) for each in groups),
        )
        for key, (length, groups) in found.items()
    ]


async def pending_of(streams: Streams, keys: Sequence[str], *, group: str) -> int:
    """How many entries of these streams the group holds. Raises Unavailable."""
    with translated():
        pipe = streams.commands.pipeline(transaction=False)
        for key in keys:
            pipe.xpending(key, group)
        # A lane that nobody has used yet has no group.
        replies = await pipe.execute(raise_on_error=False)
    return sum(int(reply["pending"]) for reply in replies if isinstance(reply, dict))


async def missing_groups(streams: Streams) -> list[str]:
    """The required groups that do not exist, as "stream group". Raises Unavailable."""
    with translated():
        pipe = streams.commands.pipeline(transaction=False)
        for stream in STREAMS:
            pipe.xinfo_groups(streams.keys.of(stream))
        replies = await pipe.execute(raise_on_error=False)
    missing = []
    for stream, reply in zip(STREAMS, replies, strict=True):
        there = {each["name"].decode() for each in reply} if isinstance(reply, list) else set()
        missing += [
            f"{streams.keys.of(stream)} {group}" for group in stream.groups if group not in there
        ]
    return missing


async def _oldest(
    streams: Streams, found: Mapping[str, tuple[int, list[dict[str, Any]]]]
) -> dict[tuple[str, bytes], float]:
    """(stream, group) -> when its oldest pending entry was added, in seconds since the epoch."""
    asked = [
        (key, group["name"])
        for key, (_, groups) in found.items()
        for group in groups
        if group["pending"]
    ]
    if not asked:
        return {}
    pipe = streams.commands.pipeline(transaction=False)
    for key, name in asked:
        pipe.xpending(key, name)
    replies = await pipe.execute(raise_on_error=False)
    return {
        where: int(reply["min"].partition(b"-")[0]) / 1000
        for where, reply in zip(asked, replies, strict=True)
        if isinstance(reply, dict) and reply.get("min")
    }


def _group(
    key: str,
    length: int,
    group: Mapping[str, Any],
    oldest: Mapping[tuple[str, bytes], float],
    now: float,
) -> GroupStatistics:
    lag, pending = group.get("lag"), int(group["pending"])
    since = oldest.get((key, group["name"]))
    return GroupStatistics(
        group=group["name"].decode(),
        pending=pending,
        # Redis cannot tell the lag after some deletions (redis #13957): then the upper bound.
        backlog=max(0, length - pending) if lag is None else int(lag),
        oldest_pending=max(0.0, now - since) if since is not None else 0.0,
    )
