"""What a run says while it works: its start, once it is worth telling, and its progress.

Through the owner-checked script, so that a worker that lost its lease cannot speak for the task.
"""

import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from orchestrator.errors import Overloaded, Unavailable
from orchestrator.event import EventKind, TaskEvent
from orchestrator.runtime.flight import Flight
from orchestrator.streams.connection import Streams
from orchestrator.streams.message import dump
from orchestrator.task import iso, new_id

ANNOUNCE_AFTER = 1.0  # seconds: shorter attempts are told by their end alone


class Voice:
    """Speaks for one worker."""

    def __init__(self, streams: Streams, *, group: str, consumer: str) -> None:
        """Store."""
        self._streams = streams
        self._group = group
        self._consumer = consumer

    async def announce(self, flights: Iterable[Flight]) -> None:
        """Tell of the starts that have become worth it."""
        now = time.monotonic()
        for flight in flights:
            if not flight.announced and now - flight.began >= ANNOUNCE_AFTER:
                await self.announce_one(flight)

    async def announce_one(self, flight: Flight) -> None:
        """Tell of one start; tried again at the next sweep if Redis is away."""
        flight.announced = True
        try:
            await self.say(flight, EventKind.STARTED, None)
        except (Unavailable, Overloaded):
            flight.announced = False

    async def progress(self, flight: Flight, detail: dict[str, Any]) -> bool:
        """Tell how far a run has come. An outage costs this news, never the attempt."""
        try:
            return await self.say(flight, EventKind.PROGRESS, detail)
        except (Unavailable, Overloaded):
            return True  # nobody has said that it is no longer ours

    async def say(self, flight: Flight, kind: EventKind, detail: dict[str, Any] | None) -> bool:
        """Say something about a run; False when it is no longer ours to speak of."""
        now = datetime.now(UTC)
        event = TaskEvent(
            task_id=flight.task.task_id,
            agent=flight.task.agent,
            event=kind,
            at=now,
            attempt=flight.attempt,
            crashes=flight.crashes,
            worker=self._consumer,
            started_at=flight.started_at,
            detail=detail,
        )
        keys = self._streams.keys
        said = await self._streams.run(
            "emit",
            [flight.delivery.stream, keys.marker(flight.task.task_id), keys.results],
            [
                self._group, self._consumer, flight.delivery.entry_id, flight.delivery.times,
                new_id(), dump(event), self._consumer, iso(now),
            ],
        )  # fmt: skip
        return bool(said)
