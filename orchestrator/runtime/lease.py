"""Keeps what this worker has in hand: renews pending entries from a thread of its own.

Agent code that blocks the event loop thereby loses nothing. The thread has its own loop and its
own connection, so that neither load nor a stuck command can starve it. It also watches the main
loop. While that is blocked, entries that Redis gives it nonetheless are handed back unread. One
that is blocked past the timeout of the task that holds it will not come back by itself, so the
neighbours are handed back, too, and the process ends.
"""

import asyncio
import contextlib
import itertools
import logging
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from orchestrator.errors import Overloaded, Unavailable
from orchestrator.runtime.service import wait_at_most
from orchestrator.runtime.witness import Witness
from orchestrator.streams.channel import Part
from orchestrator.streams.connection import Streams
from orchestrator.streams.consumer import Delivery
from orchestrator.streams.pending import Entry, pending_after
from orchestrator.task import TaskId

logger = logging.getLogger("aurora.lease")

CHUNK = 100  # entries a script call: about a millisecond of the server's time
LOOK = 0.2  # seconds between looks at the main loop
REST = 1.0  # the same where that answers and has nothing in hand: each look wakes two threads
# Looks without an answer that make it a blocked one. Counted, not timed: after a standstill of the
# whole process both threads run again, and the loop answers at once.
SILENT_LOOKS = 3
# Seconds past its timeout before the task that holds a blocked loop is given up. Its neighbours
# stand still meanwhile.
HOLDER_GRACE = 0.5
# The same where nobody knows who holds it, and any task in hand may be the one.
BLOCKED_GRACE = 2.0
UNREAD_COUNT = 100  # entries a look; a blocked loop has one read under way, and begins no other
EXIT_BLOCKED = 70  # EX_SOFTWARE: whoever supervises us starts the next one


@dataclass(slots=True)
class Held:
    """An entry in hand: which delivery of it is ours, and until when its run may take."""

    entry: Entry
    task_id: TaskId
    marker: str
    begun: str  # what the marker says while the run is under way
    deadline: float  # time.monotonic()


class Lease:
    """`held` is changed by the main loop alone; the thread reads copies of it.

    Of what Redis has delivered and is not held, the lock decides: what the main loop has received
    is its own to begin, and what the thread gave back before that is not.
    """

    def __init__(
        self,
        open_streams: Callable[[], Streams],
        *,
        group: str,
        consumer: str,
        lease: timedelta,
        marker_ttl: timedelta,
        witness: Witness,
        lanes: Callable[[], Sequence[str]],
        on_lost: Callable[[list[tuple[str, str]]], None],
    ) -> None:
        """Store. `on_lost` is called on the main loop with (stream, entry id) of each.

        `lanes`: the streams that the main loop reads.
        """
        self.held: dict[tuple[str, str], Held] = {}
        self._open_streams = open_streams
        self._group = group
        self._consumer = consumer
        self._lease = lease
        self._marker_ttl = marker_ttl
        self._witness = witness
        self._lanes = lanes
        self._on_lost = on_lost
        self._lock = threading.Lock()
        self._received: set[tuple[str, str]] = set()
        self._given_back: set[tuple[str, str]] = set()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._main: asyncio.AbstractEventLoop | None = None
        self._answered = time.monotonic()
        self._unanswered = 0  # looks
        self._rouse: Callable[[], object] | None = None  # while the thread rests

    def received(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Those that are the main loop's to begin; of what it reads next, it is asked again."""
        with self._lock:
            kept = [
                each for each in deliveries
                if (each.stream, each.entry_id) not in self._given_back
            ]  # fmt: skip
            self._given_back.clear()
            self._received = {(each.stream, each.entry_id) for each in kept}
        if kept:
            self._wake()
        return kept

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
        self._wake()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    async def _keep(self) -> None:
        streams = self._open_streams()
        period = self._lease.total_seconds() / 3
        due = time.monotonic() + period
        while not self._stopping.is_set():
            await self._pause(period)
            await _survived(self._watch_main(streams), "main loop not watched")
            if time.monotonic() < due:
                continue
            renewed = await _survived(self._renew(streams), "lease not renewed")
            # Soon again: a lease lasts three periods, an outage should not cost one.
            due = time.monotonic() + (period if renewed else min(1.0, period / 4))
        await streams.close()

    async def _pause(self, period: float) -> None:
        """Until the next look at the main loop; longer where that answers and has nothing."""
        look = min(LOOK, period)
        await asyncio.sleep(look)
        if not self.held and not self._unanswered:
            await self._rest(min(REST, period) - look)

    async def _rest(self, seconds: float) -> None:
        """Until the main loop has received something or stops, at most so long."""
        loop, news = asyncio.get_running_loop(), asyncio.Event()
        self._rouse = lambda: loop.call_soon_threadsafe(news.set)
        if self._stopping.is_set():  # asked only now: whoever set it before has roused nobody
            return
        await wait_at_most(seconds, news)
        self._rouse = None

    def _wake(self) -> None:
        """End the thread's rest, if it rests."""
        if (rouse := self._rouse) is not None:
            with contextlib.suppress(RuntimeError):  # its loop is closed: the thread has ended
                rouse()

    async def _renew(self, streams: Streams) -> None:
        by_stream: dict[str, list[Held]] = defaultdict(list)
        for held in list(self.held.values()):
            by_stream[held.entry.stream].append(held)
        lost: list[tuple[str, str]] = []
        ttl = int(self._marker_ttl.total_seconds() * 1000)
        for stream, entries in by_stream.items():
            for start in range(0, len(entries), CHUNK):
                chunk = entries[start : start + CHUNK]
                pairs = itertools.chain.from_iterable((e.entry.entry_id, e.begun) for e in chunk)
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
        self._unanswered += 1
        if self._unanswered <= SILENT_LOOKS:
            return
        blocked = hopeless(
            list(self.held.values()), holder=self._witness.holder, answered=self._answered,
            now=time.monotonic(),
        )  # fmt: skip
        if blocked:
            await self._give_up(streams, blocked)
        await self._give_back_unread(streams)

    def _answer(self) -> None:
        self._answered = time.monotonic()
        self._unanswered = 0

    async def _give_back_unread(self, streams: Streams) -> None:
        """A reply that the blocked loop cannot read: others can begin what is in it."""
        held = [each.entry for each in list(self.held.values())]
        for lane in self._lanes():
            # New entries alone: what is read for the first time lies past all that was.
            last = max((_place(e.entry_id) for e in held if e.stream == lane), default=None)
            found = await pending_after(
                streams, lane, last and f"{last[0]}-{last[1]}", group=self._group,
                consumer=self._consumer, most=UNREAD_COUNT,
            )  # fmt: skip
            await self._give_back(streams, found)

    async def _give_back(self, streams: Streams, found: Iterable[Entry]) -> None:
        with self._lock:
            known = self._received.union(self.held)
            unread = [each for each in found if each.times == 1 and each.key not in known]
            self._given_back.update(each.key for each in unread)
        if not unread:
            return
        try:
            done = await hand_back(streams, unread, group=self._group, consumer=self._consumer)
        except BaseException:
            # Perhaps it was done. Then another begins them, too, and whoever owns them has the say.
            with self._lock:
                self._given_back.difference_update(each.key for each in unread)
            raise
        logger.warning(
            "the event loop does not answer; handed back %d tasks that it has not read", done,
            extra={"event": "worker.unread"},
        )  # fmt: skip

    async def _give_up(self, streams: Streams, blocked: list[Held]) -> None:
        logger.critical(
            "the event loop has been blocked for %.0f s by one of %s; handing back the others"
            " and ending this process",
            time.monotonic() - self._answered,
            ", ".join(held.task_id for held in blocked),
            extra={"event": "worker.blocked"},
        )
        try:
            await hand_back(
                streams,
                [held.entry for held in self.held.values() if held not in blocked],
                group=self._group,
                consumer=self._consumer,
            )
        except (Unavailable, Overloaded) as error:
            logger.critical("nothing handed back: %s; their lease will run out", error)
        finally:
            logging.shutdown()
            os._exit(EXIT_BLOCKED)


async def _survived(work: Coroutine[Any, Any, None], failure: str) -> bool:
    """True where it was done. Whatever it raises, the thread goes on: its end is every lease's."""
    try:
        await work
    except Exception as error:
        logger.warning(
            "%s: %s", failure, error, exc_info=not isinstance(error, Unavailable | Overloaded),
            extra={"event": "lease.late"},
        )  # fmt: skip
        return False
    return True


def hopeless(
    held: Sequence[Held], *, holder: TaskId | None, answered: float, now: float
) -> list[Held]:
    """Which of these block the loop, silent since `answered`, past their own timeout.

    Where a task's code is seen to hold it, that task alone: until its timeout it may, however long
    the others wait. Otherwise every one whose timeout should have acted.
    """
    grace = BLOCKED_GRACE
    if holder is not None:
        held, grace = [each for each in held if each.task_id == holder], HOLDER_GRACE
    # Both: the loop has not answered since before the deadline, so the timeout could not act.
    return [each for each in held if answered < each.deadline and each.deadline + grace < now]


def _place(entry_id: str) -> tuple[int, int]:
    ms, _, sequence = entry_id.partition("-")
    return int(ms), int(sequence)


async def hand_back(
    streams: Streams, entries: Iterable[Entry], *, group: str, consumer: str
) -> int:
    """Give entries to whoever claims next, without counting as a start; how many were ours."""
    by_stream: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        by_stream[entry.stream].append(entry)
    done = 0
    for stream, own in by_stream.items():
        pairs: list[Part] = []
        for each in own:
            pairs += [each.entry_id, each.times]
        done += await streams.run("hand_back", [stream], [group, consumer, *pairs])
    return done
