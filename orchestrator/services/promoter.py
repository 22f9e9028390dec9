"""Publishes delayed messages when they are due: countdowns, ETAs and retries.

Runs in every worker, since the script that moves them may run anywhere at any time. The clock is
Redis'; the record's `run_at` is what restores them should Redis lose them.
"""

from datetime import UTC, datetime

from orchestrator.runtime.service import Stop, every
from orchestrator.streams.connection import Streams
from orchestrator.task import iso

SWEEP = 1.0  # seconds, unless something is due sooner
COUNT = 100  # messages a script call: about a millisecond of the server's time


class Promoter:
    """Moves from the delayed set to the tasks streams."""

    name = "promoter"

    def __init__(self, streams: Streams) -> None:
        """Store."""
        self.streams = streams
        self._stop = Stop()

    def stop(self) -> None:
        """Return after the sweep under way."""
        self._stop.set()

    async def run(self) -> None:
        """Sweep until stopped."""
        await every(SWEEP, self.sweep, stop=self._stop, name=self.name)

    async def sweep(self) -> float | None:
        """Publish what is due; seconds until the next is, if anything waits."""
        keys = self.streams.keys
        moved, next_ms = await self.streams.run(
            "promote", [keys.delayed, keys.delayed_bodies], [COUNT, iso(datetime.now(UTC))]
        )
        if moved == COUNT:
            return 0.0
        return next_ms / 1000 if next_ms >= 0 else None
