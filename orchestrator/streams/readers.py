"""Whether anybody reads: a queue without a worker takes tasks and runs none."""

from collections.abc import Mapping, Sequence
from enum import StrEnum

from orchestrator.streams.connection import Streams, translated
from orchestrator.streams.names import ORCHESTRATOR

ALIVE = 30_000  # milliseconds since a consumer last did something


class Readers(StrEnum):
    """What can be known of a queue's workers by looking at its lanes once.

    Redis before 7.2 does not note that somebody waits at an empty lane, so of a queue where nothing
    waits and nothing was done of late nobody can tell.
    """

    READ = "read"
    UNREAD = "unread"  # entries are there, and nobody has done anything
    QUIET = "quiet"


async def readers(streams: Streams, queues: Sequence[str]) -> Mapping[str, Readers]:
    """Queue -> whether its work is done. One round trip. Raises Unavailable."""
    lanes = [(queue, key) for queue in queues for key in streams.keys.lanes(queue)]
    with translated():
        pipe = streams.commands.pipeline(transaction=False)
        for _, key in lanes:
            pipe.xlen(key)
            pipe.xinfo_consumers(key, ORCHESTRATOR)
        # A lane that nobody has used yet answers "no such key": an error in its place, no more.
        replies = await pipe.execute(raise_on_error=False)
    found = dict.fromkeys(queues, Readers.QUIET)
    for (queue, _), length, consumers in zip(lanes, replies[::2], replies[1::2], strict=True):
        known = consumers if isinstance(consumers, list) else []
        if any(each["idle"] < ALIVE for each in known):
            found[queue] = Readers.READ
        elif length and found[queue] is Readers.QUIET:
            found[queue] = Readers.UNREAD
    return found
