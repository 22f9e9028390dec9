"""Trimming and tidying of one stream: what the janitor does to Redis."""

from datetime import timedelta

from redis.exceptions import ResponseError

from orchestrator.streams.connection import Streams, is_missing_group, translated
from orchestrator.streams.names import Stream


async def trim(
    streams: Streams, key: str, stream: Stream, *, before: float, pass_over: bool
) -> tuple[int, bool]:
    """Remove acknowledged entries older than `before` (epoch seconds).

    Gives how many went, and whether a group that we did not declare held it back.
    """
    gone, _, held = await streams.run(
        "sweep",
        [key],
        [
            f"{int(before * 1000)}-0",
            len(stream.groups),
            *stream.groups,
            "1" if pass_over else "0",
        ],
    )
    return int(gone), bool(held)


async def size_of(streams: Streams, key: str) -> int:
    """Bytes of memory, sampled; 0 for a stream that does not exist."""
    with translated():
        return int(await streams.commands.memory_usage(key) or 0)


async def consumers_retired(
    streams: Streams, key: str, group: str, *, silent: timedelta
) -> list[str]:
    """Forget consumers that have been silent and own nothing; their names."""
    try:
        reply = await streams.run("retire", [key], [group, int(silent.total_seconds() * 1000)])
    except ResponseError as error:
        if is_missing_group(error):
            return []
        raise
    return [name.decode() for name in reply]
