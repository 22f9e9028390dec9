"""One member of a consumer group; every reader of every stream is this class.

Reads no more than it is asked for, takes over from neighbours that ended, claims from the silent
with a kept cursor, finds entries whose delivery was lost on the way, and makes groups anew that
Redis has lost. It never acknowledges by itself: whoever handles a delivery says when its effect is
committed.
"""

import asyncio
import logging
import math
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NamedTuple

from redis.exceptions import ResponseError

from orchestrator.errors import Overloaded, Unavailable
from orchestrator.streams.channel import packed
from orchestrator.streams.connection import Streams, is_missing_group, translated
from orchestrator.streams.lanes import Step, busy
from orchestrator.streams.message import Fields, fields_of
from orchestrator.streams.names import Stream
from orchestrator.streams.neighbours import Neighbours, Seen
from orchestrator.streams.publisher import Publisher

logger = logging.getLogger("aurora.consumer")

BLOCK = 1.0  # seconds; a stopping reader is done within this time, it is never cancelled
POLL = 0.05  # seconds between looks when there are fewer free slots than lanes
SWEEP = 1.0  # seconds between claims
LOOK = 0.2  # seconds between looks at the neighbours: some microseconds, and nothing of Redis'
CLAIM_COUNT = 100  # XAUTOCLAIM looks at ten times as many; more would stall the server
ACKNOWLEDGE_COUNT = 1000  # entries a script call
SETTLE_COUNT = 1000  # pending entries a script call: about a millisecond of the server's time
CLAIM_CALLS = 50  # windows a sweep: also with one free slot, a long list is gone through quickly
BACKOFF = (0.1, 0.2, 0.5, 1.0, 2.0)  # seconds between tries while Redis is away


class Delivery(NamedTuple):
    """One entry as delivered to this consumer; `times`: how often it was delivered by now."""

    stream: str
    entry_id: str
    fields: Fields
    times: int = 1


@dataclass(slots=True)
class _Trouble:
    """What went wrong since the last good read."""

    failures: int = 0
    lost_reply: bool = False
    since: float = field(default_factory=time.monotonic)


class Consumer:
    """Reads for one group under one name. Not for two loops at a time."""

    def __init__(
        self,
        streams: Streams,
        *,
        group: str,
        name: str,
        lease: timedelta,
        publisher: Publisher,
        neighbours: Neighbours | None = None,
    ) -> None:
        """Store; `watch` says what to read before the first `take` or `read`."""
        self.streams = streams
        self.group = group
        self.name = name
        self.lease = lease
        self.publisher = publisher
        self.neighbours = neighbours
        self._watched: dict[str, Stream] = {}
        self._reader = streams.reader()
        self._trouble = _Trouble()
        self._busy: set[str] = set()  # lanes that gave all they were asked for
        self._cursors: dict[str, str] = {}
        self._next_claim = 0.0
        self._next_look = 0.0
        self._shares = False  # there may be more to take over
        self._settled: dict[str, float] = {}

    async def watch(self, watched: Mapping[str, Stream]) -> None:
        """Read these streams (key -> which of the five) from now on; makes their groups."""
        new = {key: stream for key, stream in watched.items() if key not in self._watched}
        if new:
            await self.streams.ensure_groups(new)
            self._watched.update(new)

    @property
    def watched(self) -> tuple[str, ...]:
        """The keys that it reads."""
        return tuple(self._watched)

    async def take(
        self, free: int, steps: Sequence[Step], *, known: Collection[str] = ()
    ) -> list[Delivery]:
        """For `free` slots, in the order of `steps`: never more than that.

        Empty after about a second without news. `known`: ids of entries in hand, so that a lost
        reply is told from work under way. Errors of the connection are waited out here.
        """
        return await self._waiting_out(lambda: self._take(free, steps, known))

    async def read(
        self,
        count: int,
        *,
        keys: Collection[str] | None = None,
        known: Collection[str] = (),
        block: float = BLOCK,
    ) -> list[Delivery]:
        """At most `count` of each stream (`keys`, default: all), in no order among the streams.

        Empty after `block` seconds without news; otherwise as `take`.
        """
        return await self._waiting_out(
            lambda: self._read(count, list(keys or self._watched), known, block)
        )

    def suspect_lost_reply(self) -> None:
        """Something between a read and its handling failed: look again for what we own."""
        self._trouble.lost_reply = True

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Say that these are dealt with; deleted where every group has said so.

        Raises Unavailable; the entries are then delivered again, which handlers must bear.
        """
        by_stream: dict[str, list[str]] = defaultdict(list)
        for each in deliveries:
            by_stream[each.stream].append(each.entry_id)
        for key, ids in by_stream.items():
            stream = self._watched[key]
            for start in range(0, len(ids), ACKNOWLEDGE_COUNT):
                await self.streams.run(
                    "acknowledge",
                    [key],
                    [
                        self.group,
                        "0" if stream.kept else "1",
                        len(stream.groups),
                        *stream.groups,
                        *ids[start : start + ACKNOWLEDGE_COUNT],
                    ],
                )

    async def _waiting_out(self, work: Callable[[], Awaitable[list[Delivery]]]) -> list[Delivery]:
        """What comes of it; nothing while Redis is away or has lost our groups."""
        try:
            got = await work()
        except (Unavailable, Overloaded) as error:
            await self._back_off(error)
            return []
        except ResponseError as error:
            if not is_missing_group(error):
                raise
            await self._repair(error)
            return []
        if self._trouble.failures:
            logger.info("Redis answers again", extra={"event": "redis.back"})
            self._trouble.failures = 0
        return got

    async def _take(
        self, free: int, steps: Sequence[Step], known: Collection[str]
    ) -> list[Delivery]:
        if found := await self._left_behind(free, known):
            return found
        lanes = list(self._watched)
        if len(lanes) <= free and not self._busy:
            # Nothing waits behind, so the order is no matter.
            asked = dict.fromkeys(lanes, free // len(lanes))
            found = await self._wait(free // len(lanes), lanes, BLOCK)
        elif len(lanes) <= free and len(self._busy) == 1:
            # One entry of each other lane tells when that gets busy, too.
            asked = {key: free - len(lanes) + 1 if key in self._busy else 1 for key in lanes}
            found = await self._read_each(asked)
        else:
            asked = {}
            found = await self._take_in_order(free, steps)
            if not found and len(lanes) > free:
                # Blocking on every lane may bring one entry of each: more than there are slots.
                await asyncio.sleep(POLL)
        self._busy = busy(Counter(each.stream for each in found), asked, free)
        return found

    async def _take_in_order(self, free: int, steps: Sequence[Step]) -> list[Delivery]:
        reply = await self.streams.run(
            "take",
            [key for key, _ in steps],
            [self.group, self.name, free, *(most for _, most in steps)],
        )
        return _deliveries(reply)

    async def _read_each(self, asked: Mapping[str, int]) -> list[Delivery]:
        """So many of each, in one write. In a script an entry costs the server more."""
        commands = [
            packed("XREADGROUP", "GROUP", self.group, self.name, "COUNT", most, "STREAMS", key, ">")
            for key, most in asked.items()
        ]
        with translated():
            replies = await self._reader.send(commands)
        return [each for reply in replies for each in _deliveries(reply)]

    async def _read(
        self, count: int, keys: Sequence[str], known: Collection[str], block: float
    ) -> list[Delivery]:
        if found := await self._left_behind(count, known):
            return found
        return await self._wait(count, keys, block)

    async def _left_behind(self, free: int, known: Collection[str]) -> list[Delivery]:
        """What was delivered and is in nobody's hand: a lost reply's, or a dead consumer's."""
        if self._trouble.lost_reply:
            if found := await self._mine(free, known):
                return found
            self._trouble.lost_reply = False
        return await self._of_the_dead(free, known)

    async def _of_the_dead(self, free: int, known: Collection[str]) -> list[Delivery]:
        if self.neighbours is not None and time.monotonic() >= self._next_look:
            seen = self.neighbours.look()
            # Also where something was found: the others take their share meanwhile.
            self._next_look = time.monotonic() + LOOK
            if seen.ended and (found := await self._take_over(free, seen)):
                return found
        if time.monotonic() < self._next_claim:
            return []
        if found := await self._claim(free, known):
            return found
        self._next_claim = time.monotonic() + SWEEP
        return []

    async def _take_over(self, free: int, seen: Seen) -> list[Delivery]:
        """Our share of it: should one of them kill us, too, the others are not with it."""
        for key in self._watched:
            most = min(free, CLAIM_COUNT)
            taken, gone = await self.streams.run(
                "take_over", [key], [self.group, self.name, most, seen.alike, *seen.ended]
            )
            await self._report_gone(key, gone)
            if taken:
                self._shares = True
                logger.warning(
                    "took over %d entries of %s from a process of this machine that ended",
                    len(taken), key, extra={"event": "entries.taken_over"},
                )  # fmt: skip
                return [_counted(key, each) for each in taken]
        self._shares = False
        return []

    async def _wait(self, count: int, keys: Sequence[str], block: float) -> list[Delivery]:
        block = min(block, LOOK) if self._shares else block
        with translated():
            reply = await self._reader.call(
                "XREADGROUP", "GROUP", self.group, self.name, "COUNT", count,
                "BLOCK", max(1, int(block * 1000)), "STREAMS", *keys, *[">"] * len(keys),
            )  # fmt: skip
        return _deliveries(reply)

    async def _claim(self, free: int, known: Collection[str]) -> list[Delivery]:
        for key in self._watched:
            for _ in range(CLAIM_CALLS):
                claimed = await self._claim_some(key, min(free, CLAIM_COUNT), known)
                if claimed:
                    logger.warning(
                        "claimed %d entries of %s from a consumer that fell silent",
                        len(claimed),
                        key,
                        extra={"event": "entries.claimed"},
                    )
                    return claimed
                if self._cursors[key] == "0-0":
                    break
        return []

    async def _claim_some(self, key: str, count: int, known: Collection[str]) -> list[Delivery]:
        """One window of the pending list, from where the last one ended.

        The cursor is kept, because one call looks at ten times its count only: from 0-0 each time,
        entries behind the window would never be claimed.
        """
        cursor, claimed, gone, behind = await self.streams.run(
            "claim",
            [key],
            [
                self.group,
                self.name,
                int(self.lease.total_seconds() * 1000),
                self._cursors.get(key, "0-0"),
                count,
                *known,
            ],
        )
        self._cursors[key] = cursor.decode()
        await self._report_gone(key, gone)
        if behind:
            await self._settle(key)
        return [_counted(key, each) for each in claimed]

    async def _settle(self, key: str) -> None:
        """Redis' clock is behind: let the silence of the silent be counted from now on.

        Once a lease for as long as it is, since it may go back again meanwhile; told once.
        """
        now, lease = time.monotonic(), self.lease.total_seconds()
        ago = now - self._settled.get(key, -math.inf)
        if ago < lease:
            return
        self._settled[key] = now
        if ago > 3 * lease:
            logger.warning(
                "Redis' clock is behind the entries of %s: it went back, or somebody gave one a"
                " time to come", key, extra={"event": "redis.clock_back"},
            )  # fmt: skip
        start = "-"
        while start:
            reply = await self.streams.run("settle", [key], [self.group, start, SETTLE_COUNT])
            start = reply.decode()

    async def _mine(self, free: int, known: Collection[str]) -> list[Delivery]:
        for key in self._watched:
            found, gone = await self.streams.run(
                "mine", [key], [self.group, self.name, len(known) + free, *known]
            )
            await self._report_gone(key, gone)
            if found:
                return [_counted(key, each) for each in found[:free]]
        return []

    async def _back_off(self, error: Exception) -> None:
        if not self._trouble.failures:
            logger.warning("%s; waiting", error, extra={"event": "redis.away"})
        # A read that failed half way may have been answered: look for what we own.
        self._trouble.lost_reply = True
        await asyncio.sleep(BACKOFF[min(self._trouble.failures, len(BACKOFF) - 1)])
        self._trouble.failures += 1

    async def _repair(self, error: Exception) -> None:
        """Make the groups again from the beginning; `$` would skip what came in between."""
        try:
            made = await self.streams.ensure_groups(self._watched)
            self._cursors.clear()
            # Of several streams read together, some may have answered.
            self._trouble.lost_reply = True
            for key, groups in made.items():
                logger.warning(
                    "%s had lost its groups: %s", key, error, extra={"event": "transport.reset"}
                )
                await self.publisher.audit(
                    "transport.reset",
                    object_type="stream",
                    object_id=key,
                    detail={"groups": groups, "said": str(error)},
                )
        except (Unavailable, Overloaded) as away:
            await self._back_off(away)

    async def _report_gone(self, key: str, gone: Sequence[bytes]) -> None:
        """Somebody trimmed entries that were pending: say so; the reconciler publishes again."""
        if not gone:
            return
        logger.error(
            "%d pending entries of %s were trimmed away", len(gone), key,
            extra={"event": "transport.trimmed"},
        )  # fmt: skip
        await self.publisher.audit(
            "transport.trimmed",
            object_type="stream",
            object_id=key,
            detail={"entries": [each.decode() for each in gone[:100]], "count": len(gone)},
        )


def _deliveries(reply: Any) -> list[Delivery]:
    return [
        Delivery(stream, entry_id.decode(), fields_of(flat))
        for stream, entries in ((key.decode(), entries) for key, entries in reply or ())
        for entry_id, flat in entries
    ]


def _counted(key: str, entry: Any) -> Delivery:
    entry_id, flat, count = entry
    return Delivery(
        stream=key, entry_id=entry_id.decode(), fields=fields_of(flat), times=int(count)
    )
