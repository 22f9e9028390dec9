"""Puts tasks on the stream before the clock starts: the very entries that `delay()` makes.

One is encoded by the publisher; the others differ in their id alone. In a packed command an id is
36 bytes wherever it stands, so replacing it in the packed bytes keeps the lengths right.
"""

from collections.abc import Iterator
from datetime import UTC, datetime

from orchestrator.agent import Agent
from orchestrator.streams.message import encode
from orchestrator.task import Durability, new_id
from tests.benchmarks.agents import Job, Noop, job
from tests.benchmarks.ground import Ground
from tests.benchmarks.wire import Wire, pack

CHUNK = 500


async def publish(
    ground: Ground,
    count: int,
    *,
    agent: type[Agent[Job, object]] = Noop,
    size: int = 300,
    seconds: float = 0.0,
) -> None:
    """`count` entries for tasks without a row (durability `stream`)."""
    wire = await Wire.connect(ground.redis_url)
    try:
        for chunk in chunks(entries(ground, count, agent=agent, size=size, seconds=seconds)):
            await wire.send(chunk)
    finally:
        wire.close()


async def accept(ground: Ground, count: int) -> None:
    """`count` tasks whose rows are committed already (durability `database`)."""
    submitter = ground.parts.submitter
    for start in range(0, count, 1000):
        tasks = [Noop.task(job()) for _ in range(min(1000, count - start))]
        await submitter.submit_many(tasks, durability=Durability.DATABASE)


def entries(
    ground: Ground,
    count: int,
    *,
    agent: type[Agent[Job, object]] = Noop,
    size: int = 300,
    seconds: float = 0.0,
) -> Iterator[bytes]:
    """Packed XADDs."""
    task = agent.task(job(size=size, seconds=seconds))
    fields = encode(task, message_id=task.task_id, at=datetime.now(UTC), producer="benchmark")
    parts = [part for pair in fields.items() for part in pair]
    template = pack(("XADD", ground.parts.streams.keys.tasks, "*", *parts))
    mine = task.task_id.encode()
    return (template.replace(mine, new_id().encode()) for _ in range(count))


def chunks(packed: Iterator[bytes], size: int = CHUNK) -> Iterator[list[bytes]]:
    """Lists of at most `size`."""
    chunk: list[bytes] = []
    for each in packed:
        chunk.append(each)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
