"""pgqueuer's side: `prepare`, `backlog N SECONDS`, `enqueue ONE BULK`, `latency N`, `worker [N]`.

Its documented ways: the list form of `enqueue`, `QueueManager.run` with a large batch, all tables
logged (durable, its default). It stores no return value, only a line of `pgqueuer_log`.
"""

import asyncio
import json
import os
import sys
import time

import asyncpg
import uvloop
from pgqueuer import AsyncpgDriver, QueueManager
from pgqueuer.core.completion import CompletionWatcher
from pgqueuer.models import Job
from pgqueuer.queries import Queries

from tests.benchmarks.gate import at_gate

BATCH = 500  # measured best here: 10, its default, drains 5.5 k/s, 100 16 k, 500 20 k, 1,000 18 k
CHUNK = 1000
NOTE = ("ET SCAN Suspicious inbound to PostgreSQL port 5432; a host never seen before. " * 4)[:265]


def payload(seconds: float = 0.0) -> bytes:
    """As large as our input."""
    return json.dumps({"n": 0, "seconds": seconds, "note": NOTE}).encode()


async def prepare(queries: Queries, connection: asyncpg.Connection) -> None:
    """Fresh tables."""
    if await queries.schema_is_installed():
        await connection.execute("TRUNCATE pgqueuer, pgqueuer_log")
    else:
        await queries.install()


async def bulk(queries: Queries, count: int, seconds: float) -> float:
    """Enqueue in lists; jobs a second."""
    began = time.monotonic()
    for start in range(0, count, CHUNK):
        size = min(CHUNK, count - start)
        await queries.enqueue(["job"] * size, [payload(seconds) for _ in range(size)], [0] * size)
    return count / (time.monotonic() - began)


async def one_by_one(queries: Queries, count: int) -> float:
    """Enqueue one awaited call after the other; jobs a second."""
    began = time.monotonic()
    for _ in range(count):
        await queries.enqueue("job", payload())
    return count / (time.monotonic() - began)


async def latency(driver: AsyncpgDriver, queries: Queries, count: int) -> list[float]:
    """Seconds from `enqueue` until the watcher says that it has ended, one at a time."""
    found = []
    async with CompletionWatcher(driver, queries=queries) as watcher:
        for _ in range(count):
            began = time.monotonic()
            (job_id,) = await queries.enqueue("job", payload())
            await watcher.wait_for(job_id)
            found.append(time.monotonic() - began)
    return found


async def worker(queries: Queries, *, at_a_time: int | None) -> None:
    """Work until killed; `at_a_time`: running at once, of which a batch may be half."""
    manager = QueueManager(queries)

    @manager.entrypoint("job")
    async def work(job: Job) -> None:
        asked = json.loads(job.payload or b"{}")
        if asked["seconds"]:
            await asyncio.sleep(asked["seconds"])

    await at_gate()
    batch = BATCH if at_a_time is None else at_a_time // 2
    await manager.run(batch_size=batch, max_concurrent_tasks=at_a_time)


async def main(command: str, *numbers: str) -> None:
    """One command, on one connection; figures go to stdout as JSON."""
    connection = await asyncpg.connect(os.environ["AURORA_DATABASE_URL"])
    driver = AsyncpgDriver(connection)
    queries = Queries(driver)
    match command:
        case "prepare":
            await prepare(queries, connection)
        case "backlog":
            await bulk(queries, int(numbers[0]), float(numbers[1]))
        case "enqueue":
            one = await one_by_one(queries, int(numbers[0]))
            print(json.dumps({"one": one, "bulk": await bulk(queries, int(numbers[1]), 0.0)}))
        case "latency":
            print(json.dumps(await latency(driver, queries, int(numbers[0]))))
        case "worker":
            await worker(queries, at_a_time=int(numbers[0]) if numbers else None)


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
