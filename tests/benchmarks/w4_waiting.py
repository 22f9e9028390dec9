"""W4: tasks that only wait, half a second each, five hundred at a time in one worker."""

import asyncio
import time

from tests.benchmarks import backlog
from tests.benchmarks.agents import Wait
from tests.benchmarks.case import Case, Sizes
from tests.benchmarks.drain import until_recorded
from tests.benchmarks.figures import Sample
from tests.benchmarks.ground import Ground
from tests.benchmarks.peers import running
from tests.benchmarks.peers.running import WAIT

CONCURRENCY = 500
LOOK = 0.005  # seconds


def cases(sizes: Sizes, *, peers: bool) -> list[Case]:
    """Ours and the peers'."""

    async def aurora(ground: Ground) -> list[Sample]:
        return await _aurora(ground, sizes.waiting)

    found = [Case("W4 waiting, aurora", aurora)]
    return found + (running.waiting_cases(sizes) if peers else [])


async def _aurora(ground: Ground, tasks: int) -> list[Sample]:
    await ground.clean()
    await backlog.publish(ground, tasks, agent=Wait, seconds=WAIT)
    await ground.role("recorder")
    await ground.role("worker", AURORA_CONCURRENCY=str(CONCURRENCY))
    began = await ground.open_gate()
    commands, results = ground.parts.streams.commands, ground.parts.streams.keys.results
    while await commands.xlen(results) < tasks:
        ground.check_alive()
        await asyncio.sleep(LOOK)
    answered = time.monotonic() - began
    recorded = await until_recorded(ground, tasks) - began
    ideal = tasks / CONCURRENCY * WAIT
    return [
        Sample("W4", f"aurora, {tasks:,} tasks", answered / ideal, "x ideal"),
        Sample("W4", f"aurora, {tasks:,} tasks, until recorded", recorded / ideal, "x ideal"),
    ]
