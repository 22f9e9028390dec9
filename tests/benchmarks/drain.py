"""A backlog until all of it is in Postgres: shared by W2, W5 and W6, and by the raw loop.

Done means: every task's row `succeeded`, every result, and two audit events a task.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from orchestrator.streams.names import RECORDER
from tests.benchmarks.ground import Ground, per_task

PATIENCE = 120.0  # seconds without a further result
FAR, NEAR = 0.1, 0.01  # seconds between looks: each costs a tenth of a millisecond of CPU
COUNTS = """
    SELECT (SELECT count(*) FROM results WHERE state IN ('succeeded', 'failed')),
           (SELECT count(*) FROM tasks WHERE state IN ('succeeded', 'failed')
            AND input IS NOT NULL),
           (SELECT count(*) FROM audit_events WHERE action = 'task.queued'),
           (SELECT count(*) FROM audit_events WHERE action = 'task.succeeded')
"""


@dataclass(frozen=True, slots=True)
class Drained:
    """How long it took, and the microseconds of CPU a task by process."""

    seconds: float
    tasks: int
    cpu: dict[str, float]

    @property
    def rate(self) -> float:
        """Tasks a second."""
        return self.tasks / self.seconds


async def drained(
    ground: Ground,
    tasks: int,
    *,
    start: Callable[[], Awaitable[object]],
    past: int = 0,
    look: Callable[[], None] = lambda: None,
) -> Drained:
    """Start what `start` starts, and wait for the end of this backlog.

    `past`: tasks that were there before, with other audit events. `look` is called
    ten times a second meanwhile.
    """
    await start()
    await ground.all_ready()
    before = ground.cpu()
    began = await ground.open_gate()
    ended = await until_recorded(ground, tasks, past=past, look=look)
    cpu = per_task(before, ground.cpu(), tasks)
    return Drained(ended - began, tasks, cpu)


async def until_recorded(
    ground: Ground, tasks: int, *, past: int = 0, look: Callable[[], None] = lambda: None
) -> float:
    """Wait until Postgres has everything; the moment at which Redis said so.

    Redis is asked, cheaply, whether the recorder has acknowledged everything (it does so after its
    commit); then Postgres is asked whether that is true.
    """
    wanted = [tasks + past, tasks + past, tasks, tasks]
    last_news, heard = time.monotonic(), -1
    counts: list[int] = []
    while True:
        acknowledged, now = await _acknowledged(ground, tasks), time.monotonic()
        if acknowledged:
            counts = list((await ground.postgres.fetchrow(COUNTS)).values())
            if counts == wanted:
                return now
        done = await _answered(ground)
        if done != heard:
            heard, last_news = done, now
        if now - last_news > PATIENCE:
            raise RuntimeError(f"no end: {counts} of {wanted}\n{ground.logs()}")
        ground.telling.say(f"{done:,} of {tasks:,}")
        ground.check_alive()
        look()
        await asyncio.sleep(FAR if done < tasks else NEAR)


async def _acknowledged(ground: Ground, tasks: int) -> bool:
    """True when nothing is left to record: the tasks are deleted, the results acknowledged."""
    commands, keys = ground.parts.streams.commands, ground.parts.streams.keys
    if await commands.xlen(keys.tasks):
        return False
    info = await commands.xinfo_stream(keys.results)
    if await _answered(ground) < tasks:
        return False
    for group in await commands.xinfo_groups(keys.results):
        if group["name"] == RECORDER.encode():
            behind = group["last-delivered-id"] != info["last-generated-id"]
            return not behind and not group["pending"]
    return False


async def _answered(ground: Ground) -> int:
    """How many results there have been; the stream is trimmed, so its length does not say."""
    info = await ground.parts.streams.commands.xinfo_stream(ground.parts.streams.keys.results)
    return int(info["entries-added"])
