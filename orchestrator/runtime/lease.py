"""Keeps what this worker has in hand: renews pending entries from a thread of its own.

Agent code that blocks the event loop thereby loses nothing. The thread has its own loop and its
own connection, so that neither load nor a stuck command can starve it. It also watches the main
loop: one that is blocked past the timeout of a task it runs will not come back by itself, so its
neighbours are handed back and the process ends.
"""

import asyncio
import itertools
import logging
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from orchestrator.errors import Overloaded, Unavailable
from orchestrator.streams.channel import Part
from orchestrator.streams.connection import Streams

logger = logging.getLogger("aurora.lease")

CHUNK = 100  # entries a script call: about a millisecond of the server's time
# Seconds past a task's timeout before a blocked loop is given up; its neighbours stand still.
BLOCKED_GRACE = 2.0
EXIT_BLOCKED = 70  # EX_SOFTWARE: whoever supervises us starts the next one


@dataclass(slots=True)
class Held:
    """An entry in hand: which delivery of it is ours, and until when its run may take."""

    stream: str
    entry_id: str
    count: int
    marker: str
    begun: str  # what the marker says while the run is under way
    deadline: float  # time.monotonic()


class Lease:
    """`held` is changed by the main loop alone; the thread reads copies of it."""

    def __init__(
        self,
        open_streams: Callable[[], Streams],
        *,
        group: str,
        consumer: str,
        lease: timedelta,
        marker_ttl: timedelta,
        on_lost: Callable[[list[tuple[str, str]]], None],
    ) -> None:
        """Store. `on_lost` is called on the main loop with (stream, entry id) of each."""
        self.held: dict[tuple[str, str], Held] = {}
        self._open_streams = open_streams
        self._group = group
        self._consumer = consumer
        self._lease = lease
        self._marker_ttl = marker_ttl
        self._on_lost = on_lost
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._main: asyncio.AbstractEventLoop | None = None
        self._answered = time.monotonic()

    def start(self) -> None:
        """Start the thread; call from the main loop."""
        self._main = asyncio.get_running_loop()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._keep()), name="aurora lease", daemon=True
        )
        self._thread.start()

    async def stop(self) -> None:
        """Stop the thread and wait for it."""
        self._stopping.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    async def _keep(self) -> None:
        streams = self._open_streams()
        period = self._lease.total_seconds() / 3
        due = time.monotonic() + period
        while not self._stopping.is_set():
            await asyncio.sleep(min(0.2, period))
            await self._watch_main(streams)
            if time.monotonic() < due:
                continue
            try:
                await self._renew(streams)
                due = time.monotonic() + period
            except Exception as error:
                # Whatever it is: a thread that ends here would lose every lease in silence.
                # Soon again: a lease lasts three periods, an outage should not cost one.
                logger.warning(
                    "lease not renewed: %s", error, exc_info=not isinstance(error, Unavailable),
                    extra={"event": "lease.late"},
                )  # fmt: skip
                due = time.monotonic() + min(1.0, period / 4)
        await streams.close()

    async def _renew(self, streams: Streams) -> None:
        by_stream: dict[str, list[Held]] = defaultdict(list)
        for held in list(self.held.values()):
            by_stream[held.stream].append(held)
        lost: list[tuple[str, str]] = []
        ttl = int(self._marker_ttl.total_seconds() * 1000)
        for stream, entries in by_stream.items():
            for start in range(0, len(entries), CHUNK):
                chunk = entries[start : start + CHUNK]
                pairs = itertools.chain.from_iterable((e.entry_id, e.begun) for e in chunk)
                reply = await streams.run(
                    "renew",
                    [stream, *(each.marker for each in chunk)],
                    [self._group, self._consumer, ttl, *pairs],
                )
                lost += [(stream, entry_id.decode()) for entry_id in reply]
        if lost and self._main is not None:
            self._main.call_soon_threadsafe(self._on_lost, lost)

    async def _watch_main(self, streams: Streams) -> None:
        assert self._main is not None  # noqa: S101 - start() has set it
        if self._main.is_closed():
            return
        self._main.call_soon_threadsafe(self._answer)
        now = time.monotonic()
        overdue = [h for h in list(self.held.values()) if h.deadline + BLOCKED_GRACE < now]
        # Both: the loop has not answered since before the deadline, so the timeout could not act.
        blocked = [held for held in overdue if self._answered < held.deadline]
        if blocked:
            await self._give_up(streams, blocked)

    def _answer(self) -> None:
        self._answered = time.monotonic()

    async def _give_up(self, streams: Streams, blocked: list[Held]) -> None:
        logger.critical(
            "the event loop has been blocked for %.0f s by one of %s; handing back the others"
            " and ending this process",
            time.monotonic() - self._answered,
            ", ".join(held.marker.rpartition(":")[2] for held in blocked),
            extra={"event": "worker.blocked"},
        )
        try:
            await hand_back(
                streams,
                [held for held in self.held.values() if held not in blocked],
                group=self._group,
                consumer=self._consumer,
            )
        except (Unavailable, Overloaded) as error:
            logger.critical("nothing handed back: %s; their lease will run out", error)
        finally:
            logging.shutdown()
            os._exit(EXIT_BLOCKED)


async def hand_back(streams: Streams, entries: list[Held], *, group: str, consumer: str) -> int:
    """Give entries to whoever claims next, without counting as a start; how many were ours."""
    by_stream: dict[str, list[Held]] = defaultdict(list)
    for held in entries:
        by_stream[held.stream].append(held)
    done = 0
    for stream, own in by_stream.items():
        pairs: list[Part] = []
        for each in own:
            pairs += [each.entry_id, each.count]
        done += await streams.run("hand_back", [stream], [group, consumer, *pairs])
    return done
