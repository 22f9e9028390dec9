"""Drives a peer from here: fills its queue, starts its worker at the gate, sees when it is done."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.case import Case, Sizes
from tests.benchmarks.figures import Sample, percentile
from tests.benchmarks.ground import Ground
from tests.benchmarks.peers import environments

POLL = 0.02  # seconds
PATIENCE = 180.0  # seconds
WAIT = 0.5  # seconds that a task of W4 waits


@dataclass(frozen=True, slots=True)
class Peer:
    """One peer. `done`: how many jobs have ended with everything stored that it stores."""

    name: str
    shown: str
    done: Callable[[Ground], Awaitable[int]]

    async def fresh(self, ground: Ground) -> None:
        """Empty servers, with its tables."""
        await ground.clean()
        if self.name == "pgqueuer":
            await self.command(ground, "prepare")

    async def command(self, ground: Ground, *arguments: str) -> Any:
        """Run one command of its `*_jobs.py`; what it printed."""
        process = await asyncio.create_subprocess_exec(
            str(await environments.python(self.name)), "-m",
            f"tests.benchmarks.peers.{self.name}_jobs", *arguments,
            env=ground.environment(), stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, said = await process.communicate()
        if process.returncode:
            raise RuntimeError(f"{self.name} {arguments}: {said.decode(errors='replace')[-1500:]}")
        return json.loads(out) if out.strip() else None

    async def worker(self, ground: Ground, *, at_a_time: int | None = None) -> None:
        """One worker process; `at_a_time`: None for what is best for tasks that do nothing."""
        module = f"tests.benchmarks.peers.{self.name}_jobs"
        command: tuple[str, ...] = (module, "worker", *((str(at_a_time),) if at_a_time else ()))
        if self.name == "taskiq":
            command = (
                "taskiq", "worker", f"{module}:broker", "--workers", "1", "--log-level", "WARNING",
                "--max-async-tasks", str(at_a_time or 100),
            )  # fmt: skip
        await ground.start("worker", *command, python=await environments.python(self.name))

    async def drain(self, ground: Ground, jobs: int, *, seconds: float = 0.0) -> float:
        """Seconds from the gate until all jobs have ended."""
        await self.fresh(ground)
        await self.command(ground, "backlog", str(jobs), str(seconds))
        await self.worker(ground, at_a_time=500 if seconds else None)
        began = await ground.open_gate()
        while (done := await self.done(ground)) < jobs:
            ground.telling.say(f"{done:,} of {jobs:,}")
            ground.check_alive()
            if time.monotonic() - began > PATIENCE:
                raise RuntimeError(f"{self.name}: {done} of {jobs}\n{ground.logs()}")
            await asyncio.sleep(POLL)
        return time.monotonic() - began


async def _pgqueuer_done(ground: Ground) -> int:
    sql = "SELECT count(*) FROM pgqueuer_log WHERE status = 'successful'"
    return int(await ground.postgres.fetchval(sql))


async def _taskiq_done(ground: Ground) -> int:
    # Acknowledged after its result is stored (--ack-type when_saved, the default).
    commands = ground.parts.streams.commands
    for group in await commands.xinfo_groups(f"{ground.prefix}:taskiq"):
        return int(group["entries-read"] or 0) - int(group["pending"])
    return 0


PEERS = (
    Peer("pgqueuer", "pgqueuer", _pgqueuer_done),
    Peer("taskiq", "taskiq-redis", _taskiq_done),
)


def drain_cases(sizes: Sizes) -> list[Case]:
    """W2 with each peer."""
    return [
        _case(
            peer, "W2 drain", _drain, sizes.drain if peer.name == "pgqueuer" else sizes.taskiq_drain
        )
        for peer in PEERS
    ]


def enqueue_cases(sizes: Sizes) -> list[Case]:
    """W1 with each peer."""
    return [_case(peer, "W1 enqueue", _enqueue, sizes.one_by_one) for peer in PEERS]


def latency_cases(sizes: Sizes) -> list[Case]:
    """W3 with each peer; pgqueuer's tenth of a second is measured on fewer."""
    return [
        _case(peer, "W3 latency", _latency, sizes.latency // (12 if peer.name == "pgqueuer" else 2))
        for peer in PEERS
    ]


def waiting_cases(sizes: Sizes) -> list[Case]:
    """W4 with each peer."""
    return [_case(peer, "W4 waiting", _waiting, sizes.waiting) for peer in PEERS]


def _case(
    peer: Peer, name: str, measure: Callable[[Ground, Peer, int], Awaitable[list[Sample]]], n: int
) -> Case:
    return Case(f"{name}, {peer.shown}", lambda ground: measure(ground, peer, n))


async def _drain(ground: Ground, peer: Peer, jobs: int) -> list[Sample]:
    rate = jobs / await peer.drain(ground, jobs)
    return [Sample("W2", peer.shown, rate, "tasks/s", of="W2 raw loop")]


async def _enqueue(ground: Ground, peer: Peer, count: int) -> list[Sample]:
    await peer.fresh(ground)
    found = await peer.command(ground, "enqueue", str(count), str(count * 5))
    return [
        Sample("W1", f"one by one, {peer.shown}", found["one"], "tasks/s"),
        Sample("W1", f"bulk, {peer.shown}", found["bulk"], "tasks/s"),
    ]


async def _latency(ground: Ground, peer: Peer, count: int) -> list[Sample]:
    await peer.fresh(ground)
    await peer.worker(ground)
    await ground.open_gate()
    await peer.command(ground, "latency", "5")
    found = await peer.command(ground, "latency", str(count))
    return [
        Sample("W3", f"result p{share}, {peer.shown}", percentile(found, share / 100) * 1e3, "ms")
        for share in (50, 99)
    ]


async def _waiting(ground: Ground, peer: Peer, count: int) -> list[Sample]:
    ideal = count / 500 * WAIT
    total = await peer.drain(ground, count, seconds=WAIT)
    return [Sample("W4", f"{peer.shown}, {count:,} tasks", total / ideal, "x ideal")]
