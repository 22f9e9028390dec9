"""Keeps Redis from growing: trims what every group has acknowledged, deletes dead consumers.

Never removes an entry before every required group has acknowledged it. Groups that we did not
declare are waited for up to 24 h or 60 % of memory, then passed over, and the audit says so.
"""

import logging
import time
from datetime import timedelta

from orchestrator.runtime.service import Stop, every
from orchestrator.streams.housekeeping import consumers_retired, size_of, trim
from orchestrator.streams.names import RETENTION_BYTES, STREAMS, TASKS, Stream
from orchestrator.streams.publisher import Publisher

logger = logging.getLogger("aurora.janitor")

SWEEP = 10.0  # seconds
HOLD = 30.0  # seconds that the one at work is it
FOREIGN_PATIENCE = timedelta(hours=24)
FOREIGN_MEMORY = 0.60
# After so many a consumer with nothing pending is forgotten: 150 s by default. One that lives after
# all is made again by its next read.
SILENT_LEASES = 10


class Janitor:
    """One is at work at a time."""

    name = "janitor"

    def __init__(self, publisher: Publisher, *, lease: timedelta) -> None:
        """Store."""
        self.publisher = publisher
        self.silent = SILENT_LEASES * lease
        self.streams = publisher.streams
        self._stop = Stop()

    def stop(self) -> None:
        """Return after the sweep under way."""
        self._stop.set()

    async def run(self) -> None:
        """Sweep until stopped."""
        await every(SWEEP, self.sweep, stop=self._stop, name=self.name)

    async def sweep(self) -> None:
        """Trim each stream, and forget silent consumers."""
        if not await self.streams.hold(self.name, self.publisher.producer, seconds=HOLD):
            return
        share = await self.streams.memory_share()
        if share > FOREIGN_MEMORY:
            logger.warning(
                "Redis uses %.0f %% of its memory", share * 100, extra={"event": "redis.memory"}
            )
        for key, stream in (await self._all()).items():
            await self._trim(key, stream, full=share > FOREIGN_MEMORY)
            for group in stream.groups:
                await consumers_retired(self.streams, key, group, silent=self.silent)

    async def _all(self) -> dict[str, Stream]:
        keys = self.streams.keys
        found = {keys.of(stream): stream for stream in STREAMS}
        for queue in await self.streams.queues():
            found.update(dict.fromkeys(keys.lanes(queue), TASKS))
        return found

    async def _trim(self, key: str, stream: Stream, *, full: bool) -> None:
        now = time.time()
        kept = stream.kept.total_seconds()
        # Where memory is short the past goes first: workers stop reading a little later, and would
        # wait for it to grow old. (The size is a sample, and of mixed entries a poor one.)
        if kept and (full or await size_of(self.streams, key) > RETENTION_BYTES):
            kept = 0.0
        gone, held = await trim(self.streams, key, stream, before=now - kept, pass_over=False)
        if gone:
            logger.debug("trimmed %d entries of %s", gone, key)
        if not held:
            return
        patience = 0.0 if full else FOREIGN_PATIENCE.total_seconds()
        passed, _ = await trim(
            self.streams, key, stream, before=now - max(kept, patience), pass_over=True
        )
        if passed:
            await self.publisher.audit(
                "stream.group_passed_over",
                object_type="stream",
                object_id=key,
                detail={"entries": passed, "why": "memory" if full else "older than 24 h"},
            )
