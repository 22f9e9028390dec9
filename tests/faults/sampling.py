"""What processes and servers hold, noted again and again; what grows between two quarters is wrong.

The first quarter is for warming up (pools, caches, retention), the second is the measure for the
last. Medians, because faults make single samples mean nothing: a server that was just restarted, a
queue that an outage has filled.
"""

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import psutil
from sqlalchemy import text

from orchestrator.errors import OrchestratorError
from orchestrator.streams import statistics
from orchestrator.streams.connection import translated
from tests.faults.ground import LEASE, Ground, Slot

EVERY = 2.0  # seconds
# Seconds after its end in which a consumer is forgotten: ten leases, a sweep of the janitor (10 s)
# and the hold of one that was killed (30 s).
FORGOTTEN = 10 * LEASE + 40
LEAST = 5  # samples in a quarter: with fewer nothing can be said
Sample = dict[str, float]


@dataclass(frozen=True)
class Limit:
    """The last quarter's median may be `share` times the second's, and `more`."""

    share: float
    more: float


# By the last word of a resource's name. What is gathered by an even leak from nothing on is in the
# last quarter 2.3 times what it was in the second; an even leak on top of what is needed anyway
# shows in an hour when it takes half of what is allowed here in ten minutes.
LIMITS = {
    # A tenth of a worker's 80 MB in half an hour at 10 tasks/s: 450 bytes a task would be found.
    "rss": Limit(1.10, 0),
    "memory": Limit(1.10, 0),
    # Pools open their connections when they first need them, up to eight (Redis), ten (Postgres).
    "descriptors": Limit(1.0, 8),
    "connections": Limit(1.0, 8),
    # Whatever waits: as much as an outage of a second or two leaves behind.
    "entries": Limit(1.5, 100),
    "pending": Limit(1.5, 100),
    # Seconds: ten minutes, the janitor's sweep and the hold of one that was killed.
    "age": Limit(0.0, 600 + 10 + 30),
    # Markers of the last minutes; the pace of the load is not quite even.
    "keys": Limit(1.25, 100),
    # Of the living, and of those that died in the last ten leases.
    "consumers": Limit(1.25, 10),
    # Of those that should have been forgotten: what a server that was restarted just now, and has
    # lost for how long they were silent, still has.
    "dead": Limit(0.0, 5),
}


def grown(
    samples: Sequence[tuple[float, Sample]], *, limits: Mapping[str, Limit] = LIMITS
) -> dict[str, tuple[float, float]]:
    """What exceeds its limit: its medians in the second and in the last quarter.

    `samples`: seconds since the beginning, and what was seen then; not each has every resource.
    """
    found = {}
    for name, (before, after) in quarters(samples).items():
        limit = limits.get(name.rpartition(" ")[2])
        if limit is not None and after > before * limit.share + limit.more:
            found[name] = before, after
    return found


def quarters(samples: Sequence[tuple[float, Sample]]) -> dict[str, tuple[float, float]]:
    """The medians of each resource in the second and in the last quarter of the time."""
    if not samples:
        return {}
    whole = samples[-1][0]
    seen: dict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for at, sample in samples:
        quarter = int(4 * at / whole)
        for name, value in sample.items():
            if quarter == 1:
                seen[name][0].append(value)
            elif quarter >= 3:
                seen[name][1].append(value)
    return {
        name: (median(second), median(last))
        for name, (second, last) in seen.items()
        if min(len(second), len(last)) >= LEAST
    }


class Sampler:
    """Looks every few seconds, at these slots' processes and at the servers."""

    def __init__(self, ground: Ground, slots: Sequence[Slot], *, every: float = EVERY) -> None:
        """Store. `slots`: those whose processes live from beginning to end."""
        self._ground = ground
        self._every = every
        self._slots = slots
        self._stopped = False
        self.samples: list[tuple[float, Sample]] = []

    async def run(self) -> None:
        """Look until stopped."""
        began = time.monotonic()
        while not self._stopped:
            sample: Sample = {}
            for slot in self._slots:
                sample |= dict(_of_process(slot))
            # A server that a fault has taken away has nothing to say now.
            with contextlib.suppress(OrchestratorError):
                sample |= await self._of_redis()
            with contextlib.suppress(OrchestratorError):
                sample |= await self._of_postgres()
            self.samples.append((time.monotonic() - began, sample))
            await asyncio.sleep(self._every)

    def stop(self) -> None:
        """Let `run` end. A cancellation may get lost: `asyncio.wait_for` of 3.11 swallows it."""
        self._stopped = True

    def wrong(self, *, limits: Mapping[str, Limit] = LIMITS) -> dict[str, list[str]]:
        """For the verdict."""
        expected = [f"{_name(slot)} rss" for slot in self._slots]
        expected += ["redis memory", "redis keys", "redis consumers", "postgres connections"]
        found = quarters(self.samples)
        return {
            "grows": [
                f"{name}: {before:,.0f} -> {after:,.0f}"
                for name, (before, after) in grown(self.samples, limits=limits).items()
            ],
            # What sees nothing would otherwise be green.
            "not measured": [name for name in expected if name not in found],
        }

    def told(self) -> dict[str, str]:
        """For the report: the second quarter and the last one of all that was not always 0."""
        return {
            name: f"{before:,.0f} -> {after:,.0f}"
            for name, (before, after) in sorted(quarters(self.samples).items())
            if before or after
        }

    async def _of_redis(self) -> Sample:
        streams = self._ground.parts.streams
        keys = streams.keys
        found: Sample = {}
        consumers: list[Any] = []
        killed = {pid for pid, at in self._ground.kills if time.time() - at > FORGOTTEN}
        for each in await statistics.read(streams):
            # Those are kept for ten minutes: in a shorter run they must grow, so their age counts.
            if each.key != keys.results:
                found[f"{each.key} entries"] = each.length
            found[f"{each.key} pending"] = sum(group.pending for group in each.groups)
        with translated():
            info = await streams.commands.info()
            results = int(await streams.commands.memory_usage(keys.results, samples=100) or 0)
            for stream, group in ((keys.tasks, "orchestrator"), (keys.tasks, "recorder"),
                                  (keys.results, "recorder"), (keys.audit, "auditor")):  # fmt: skip
                consumers += await streams.commands.xinfo_consumers(stream, group)
            first = await streams.commands.xrange(keys.results, count=1)
            found[f"{keys.results} age"] = _age(first[0][0]) if first else 0.0
            found["redis keys"] = int(await streams.commands.dbsize())
        return found | {
            "redis memory": int(info["used_memory"]) - results,
            "redis connections": int(info["connected_clients"]),
            "redis consumers": len(consumers),
            "redis dead": sum(_pid(each["name"]) in killed for each in consumers),
        }

    async def _of_postgres(self) -> Sample:
        async with self._ground.parts.database.transaction() as connection:
            count = await connection.scalar(
                text("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'")
            )
        return {"postgres connections": int(count or 0)}


def _pid(consumer: bytes) -> int:
    """As `unique_name` has put it there."""
    return int(consumer.split(b"-")[-2])


def _age(entry_id: bytes) -> float:
    """Seconds since the entry was added."""
    return time.time() - int(entry_id.partition(b"-")[0]) / 1000


def _of_process(slot: Slot) -> Iterator[tuple[str, float]]:
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(slot.process.pid)
        yield f"{_name(slot)} rss", process.memory_info().rss
        yield f"{_name(slot)} descriptors", process.num_fds()
        yield f"{_name(slot)} connections", len(process.net_connections("tcp"))


def _name(slot: Slot) -> str:
    return slot.log.stem
