"""How many more tasks Redis may be given: beyond it submissions are refused and publication waits.

The submitter and the reconciler ask; `aurora doctor` and /readyz tell.
"""

import math
import time

from orchestrator.errors import Overloaded
from orchestrator.streams.connection import Streams

REFUSE_AT = 0.70  # of Redis' maxmemory; workers stop reading at 0.75, completions never stop
DEFER_AT = 0.72  # for what has been accepted already
# What has been accepted may fill a tenth more than submissions may: whoever submits without end
# would otherwise take every place that becomes free, and it would wait for ever.
RESERVE = 0.1
RETRY_AFTER = 10  # seconds that a refused caller should wait
LOOK_EVERY = 1.0  # seconds between looks at Redis


async def admit_alerts(streams: Streams) -> None:
    """Take alerts in: they have no row yet that could wait. Raises Overloaded, Unavailable."""
    share = await streams.memory_share()
    if share >= REFUSE_AT:
        raise Overloaded(f"Redis uses {share:.0%} of its memory", retry_after=RETRY_AFTER)


class Room:
    """One process' view of it, at most a second old. Refuses nothing that was accepted."""

    def __init__(self, streams: Streams, *, max_backlog: int) -> None:
        """Store. `max_backlog`: tasks that may wait in Redis, in all queues together."""
        self.streams = streams
        self.max_backlog = max_backlog
        self._looked_at = -math.inf
        self._memory_share = 0.0
        self._backlog = 0

    async def admit(self, tasks: int) -> None:
        """Take so many in. Raises Overloaded, Unavailable."""
        if (why := await self.refusal()) is not None:
            raise Overloaded(why, retry_after=RETRY_AFTER)
        self.given(tasks)

    async def refusal(self) -> str | None:
        """Why nothing more is accepted; None while there is room. Raises Unavailable."""
        await self._look()
        # Completions must find room.
        if self._memory_share >= REFUSE_AT:
            return f"Redis uses {self._memory_share:.0%} of its memory"
        if self._backlog >= self.max_backlog:
            return f"{self._backlog} tasks wait already (AURORA_MAX_BACKLOG={self.max_backlog})"
        return None

    async def for_accepted(self) -> int:
        """How many tasks that have a row already may be published now. Raises Unavailable."""
        await self._look()
        if self._memory_share >= DEFER_AT:
            return 0
        return max(0, math.ceil(self.max_backlog * (1 + RESERVE)) - self._backlog)

    def given(self, tasks: int) -> None:
        """So many more are there, or about to be."""
        self._backlog += tasks

    async def _look(self) -> None:
        if time.monotonic() - self._looked_at <= LOOK_EVERY:
            return
        # While Redis is away it is asked once a second, too: the row is what accepts.
        share, backlog = 0.0, 0
        try:
            share = await self.streams.memory_share()
            backlog = await self.streams.backlog()
        finally:
            self._memory_share, self._backlog = share, backlog
            self._looked_at = time.monotonic()
