"""Whether a worker may read on: not while Redis is nearly full or Postgres far behind."""

import logging

from orchestrator.streams.connection import Streams
from orchestrator.streams.names import RECORDER, RESULTS

logger = logging.getLogger("aurora.dispatcher")

STOP_READING_AT = 0.75  # of Redis' maxmemory: what is in hand must find room to end
RECORDER_LAG = 50_000  # results that wait for Postgres


class Pressure:
    """One per worker, whose dispatcher asks it. Stops no run: what is in hand goes on."""

    def __init__(self, streams: Streams) -> None:
        """Store; nothing is in the way before the first look."""
        self.streams = streams
        self.reason: str | None = None  # why nothing more should be read

    async def look(self) -> bool:
        """Look at both servers; True where the answer is another one. Raises Unavailable."""
        share = await self.streams.memory_share()
        lag = await self.streams.lag(RESULTS, RECORDER) if share < STOP_READING_AT else 0
        reason = None
        if share >= STOP_READING_AT:
            reason = f"Redis uses {share:.0%} of its memory"
        elif lag >= RECORDER_LAG:
            reason = f"{lag} results wait for Postgres"
        if reason == self.reason:
            return False
        logger.warning(
            "reading %s", f"stops: {reason}" if reason else "goes on",
            extra={"event": "dispatcher.paused" if reason else "dispatcher.resumed"},
        )  # fmt: skip
        self.reason = reason
        return True
