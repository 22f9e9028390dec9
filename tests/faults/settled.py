"""Whether everything on the streams has been dealt with, strangers' entries among it."""

import asyncio

from redis.exceptions import ResponseError

from orchestrator.streams.names import STREAMS
from tests.faults.ground import Ground

SETTLED = 60.0  # seconds in which the last of them must have been dealt with


async def waiting(ground: Ground) -> int:
    """Entries of the streams that are deleted once they are dealt with."""
    streams = ground.parts.streams
    lanes = [*streams.keys.lanes("default"), streams.keys.audit]
    return sum([await streams.commands.xlen(key) for key in lanes])


async def settled(ground: Ground) -> list[str]:
    """Groups that have something unread or unacknowledged even after a while."""
    keys = ground.parts.streams.keys
    every = [*keys.lanes("default"), *map(keys.of, STREAMS)]
    left: list[str] = []
    for _ in range(int(SETTLED / 0.2)):
        left = [said for key in every for said in await _left(ground, key)]
        if not left and not await ground.rows(NOT_ENDED):
            return []
        await asyncio.sleep(0.2)
    return left


NOT_ENDED = """SELECT 1 FROM tasks WHERE coalesce(run_at < now(), true)
AND state NOT IN ('succeeded', 'failed', 'cancelled', 'expired', 'dead') LIMIT 1"""


async def _left(ground: Ground, key: str) -> list[str]:
    commands = ground.parts.streams.commands
    try:
        stream, groups = await commands.xinfo_stream(key), await commands.xinfo_groups(key)
    except ResponseError:
        return []  # no such stream
    last = stream["last-generated-id"]
    return [
        f"{key} {group['name'].decode()}: {group['pending']} pending"
        for group in groups
        if group["pending"] or (stream["length"] and group["last-delivered-id"] != last)
    ]
