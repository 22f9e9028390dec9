"""taskiq's side: `backlog N SECONDS`, `enqueue ONE BULK`, `latency N`; `broker` for its own CLI.

Its documented ways: RedisStreamBroker, which acknowledges, with RedisAsyncResultBackend, and orjson
for messages. It has no call for many tasks: a hundred at a time are gathered.
"""

import asyncio
import json
import os
import sys
import time
from typing import Any

import uvloop
from taskiq import TaskiqEvents, TaskiqState
from taskiq.serializers import ORJSONSerializer
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from tests.benchmarks.gate import at_gate

URL, PREFIX = os.environ["AURORA_REDIS_URL"], os.environ["AURORA_PREFIX"]
NOTE = ("ET SCAN Suspicious inbound to PostgreSQL port 5432; a host never seen before. " * 4)[:265]
GATHERED = 100
POLL = 0.002  # seconds; its default of 0.2 would be its latency

broker = (
    RedisStreamBroker(URL, queue_name=f"{PREFIX}:taskiq", consumer_id="0", xread_count=100)
    .with_result_backend(
        RedisAsyncResultBackend(URL, prefix_str=f"{PREFIX}:result", serializer=ORJSONSerializer())
    )
    .with_serializer(ORJSONSerializer())
)


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def held(_: TaskiqState) -> None:
    """Wait for the clock."""
    await at_gate()


@broker.task(task_name="job")
async def work(seconds: float, note: str) -> dict[str, Any]:
    """As our agent: nothing, or a wait."""
    began = time.monotonic()
    if seconds:
        await asyncio.sleep(seconds)
    return {"n": 0, "began": began, "note": note[:150]}


async def bulk(count: int, seconds: float) -> float:
    """Tasks a second."""
    began = time.monotonic()
    for start in range(0, count, GATHERED):
        size = min(GATHERED, count - start)
        await asyncio.gather(*(work.kiq(seconds, NOTE) for _ in range(size)))
    return count / (time.monotonic() - began)


async def one_by_one(count: int) -> float:
    """Tasks a second."""
    began = time.monotonic()
    for _ in range(count):
        await work.kiq(0.0, NOTE)
    return count / (time.monotonic() - began)


async def latency(count: int) -> list[float]:
    """Seconds from `kiq` until the result is in the caller's hand, one at a time."""
    found = []
    for _ in range(count):
        began = time.monotonic()
        task = await work.kiq(0.0, NOTE)
        await task.wait_result(check_interval=POLL)
        found.append(time.monotonic() - began)
    return found


async def main(command: str, *numbers: str) -> None:
    """One command; figures go to stdout as JSON."""
    await broker.startup()
    match command:
        case "backlog":
            await bulk(int(numbers[0]), float(numbers[1]))
        case "enqueue":
            one = await one_by_one(int(numbers[0]))
            print(json.dumps({"one": one, "bulk": await bulk(int(numbers[1]), 0.0)}))
        case "latency":
            print(json.dumps(await latency(int(numbers[0]))))
    await broker.shutdown()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
