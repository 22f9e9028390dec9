"""W3: latency, one task at a time; until it runs, until its result is here, until it is recorded.

Worker and recorder are processes of their own; all clocks are one machine's monotonic clock.
"""

import asyncio
import time

from orchestrator.client import set_submitter
from orchestrator.handle import Handle
from orchestrator.task import Durability
from tests.benchmarks import backlog
from tests.benchmarks.agents import Done, Noop, job
from tests.benchmarks.case import Case, Sizes
from tests.benchmarks.figures import Sample, percentile
from tests.benchmarks.ground import Ground
from tests.benchmarks.peers import running
from tests.benchmarks.wire import Wire

WARM = 50  # tasks that are not counted
PATIENCE = 30.0  # seconds
IDLE = 0.01  # seconds between calls, so that every process has gone to sleep
SHARES = (50, 95, 99)
SEEN = "SELECT 1 FROM results WHERE task_id = $1"


def cases(sizes: Sizes, *, peers: bool) -> list[Case]:
    """The raw loop, both durabilities, the peers."""

    async def raw(ground: Ground) -> list[Sample]:
        return await _raw(ground, sizes.latency)

    async def stream(ground: Ground) -> list[Sample]:
        return await _aurora(ground, sizes.latency, Durability.STREAM)

    async def database(ground: Ground) -> list[Sample]:
        return await _aurora(ground, sizes.latency, Durability.DATABASE)

    found = [
        Case("W3 latency, raw", raw),
        Case("W3 latency, stream", stream),
        Case("W3 latency, database", database),
    ]
    return found + (running.latency_cases(sizes) if peers else [])


async def _aurora(ground: Ground, count: int, durability: Durability) -> list[Sample]:
    await ground.clean()
    await ground.role("recorder")
    await ground.role("worker")
    await ground.open_gate()
    async with ground.client() as parts:
        set_submitter(parts.submitter)
        await _until_results(WARM, durability)
        starts, results = await _until_results(count, durability)
        rows = await _until_recorded(ground, count // 5, durability)
        found = {"start": starts, "result": results, "row": rows}
        if durability is Durability.STREAM:
            (
                found["start, 10 ms idle between"],
                found["result, 10 ms idle between"],
            ) = await _until_results(count // 4, durability, idle=IDLE)
    set_submitter(ground.parts.submitter)
    return [
        sample
        for what, values in found.items()
        for sample in samples(what, values, f", {durability}")
    ]


async def _until_results(
    count: int, durability: Durability, *, idle: float = 0.0
) -> tuple[list[float], list[float]]:
    """Seconds from the call until `run` begins, and until the result is here."""
    starts, results, said = [], [], job()
    for _ in range(count):
        began = time.monotonic()
        handle: Handle[Done] = await Noop.apply_async(said, durability=durability)
        done = await handle.get(PATIENCE)
        results.append(time.monotonic() - began)
        starts.append(done.began - began)
        if idle:
            await asyncio.sleep(idle)
    return starts, results


async def _until_recorded(ground: Ground, count: int, durability: Durability) -> list[float]:
    """Seconds until another connection sees the result's row; asked every 0.2 ms."""
    found, said = [], job()
    for _ in range(count):
        began = time.monotonic()
        handle = await Noop.apply_async(said, durability=durability)
        while not await ground.postgres.fetchval(SEEN, handle.task_id):  # noqa: ASYNC110
            await asyncio.sleep(0.0002)
        found.append(time.monotonic() - began)
    return found


async def _raw(ground: Ground, count: int) -> list[Sample]:
    """XADD, a worker in another process, XREAD of its answer; packed commands, nothing recorded."""
    await ground.clean()
    await ground.start("worker", "tests.benchmarks.raw", "worker")
    await ground.open_gate()
    results = ground.parts.streams.keys.results
    asking, hearing = await Wire.connect(ground.redis_url), await Wire.connect(ground.redis_url)
    last: bytes = b"0-0"
    found = []
    for packed in backlog.entries(ground, count + WARM):
        began = time.monotonic()
        heard = asyncio.ensure_future(
            hearing.call("XREAD", "BLOCK", 5000, "STREAMS", results, last)
        )
        await asking.send([packed])
        ((_, entries),) = await heard
        found.append(time.monotonic() - began)
        last = entries[-1][0]
    asking.close()
    hearing.close()
    return samples("raw result", found[WARM:], "")


def samples(what: str, values: list[float], then: str) -> list[Sample]:
    """p50, p95 and p99 in milliseconds."""
    name, _, idle = what.partition(", ")
    tail = f"{then}{', ' + idle if idle else ''}"
    of = name == "result"
    return [
        Sample(
            "W3", f"{name} p{share}{tail}", percentile(values, share / 100) * 1e3, "ms",
            of=f"W3 raw result p{share}" if of else "",
        )
        for share in SHARES
    ]  # fmt: skip
