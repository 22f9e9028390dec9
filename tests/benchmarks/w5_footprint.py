"""W5: memory and CPU of a worker that has nothing to do, and memory while it drains."""

import asyncio
import time

import psutil

from tests.benchmarks import backlog
from tests.benchmarks.case import Case, Sizes
from tests.benchmarks.drain import drained
from tests.benchmarks.figures import Sample
from tests.benchmarks.ground import Ground, Running, cpu_seconds

SETTLE = 4.0  # seconds from its start
MB = 2**20


def cases(sizes: Sizes, *, peers: bool) -> list[Case]:
    """Idle, and busy."""
    del peers  # theirs are in the reference; each would cost half a minute

    async def idle(ground: Ground) -> list[Sample]:
        return await _idle(ground, sizes.idle)

    async def busy(ground: Ground) -> list[Sample]:
        return await _busy(ground, sizes.memory_drain)

    return [Case("W5 idle", idle, rounds=3), Case("W5 memory over a drain", busy, rounds=2)]


async def _idle(ground: Ground, seconds: float) -> list[Sample]:
    """`aurora worker` and `aurora recorder` by the command line, as a user starts them."""
    await ground.clean()
    roles = ("worker", "recorder")
    running = [
        await ground.start(role, "orchestrator", role, "--log-level", "warning") for role in roles
    ]
    await asyncio.sleep(SETTLE)
    ground.check_alive()
    before = [cpu_seconds(each.pid) for each in running]
    began = time.monotonic()
    await asyncio.sleep(seconds)
    elapsed = time.monotonic() - began
    found = []
    for each, already in zip(running, before, strict=True):
        share = (cpu_seconds(each.pid) - already) / elapsed * 100
        found += [
            Sample("W5", f"idle {each.name}, RSS", _rss(each) / MB, "MB"),
            Sample("W5", f"idle {each.name}, CPU", share, "% of a core"),
        ]
    return found


async def _busy(ground: Ground, tasks: int) -> list[Sample]:
    await ground.clean()
    await backlog.publish(ground, tasks)
    running: list[Running] = []
    seen: list[tuple[int, int]] = []

    async def start() -> None:
        running.extend([await ground.role("worker"), await ground.role("recorder")])

    def look() -> None:
        seen.append((_rss(running[0]), _rss(running[1])))

    await drained(ground, tasks, start=start, look=look)
    found = []
    for each, values in zip(running, zip(*seen, strict=True), strict=True):
        # The first tenth is its start: buffers and caches come to their size.
        tenth, half = len(values) // 10, len(values) // 2
        early, late = max(values[tenth:half]), max(values[half:])
        found += [
            Sample("W5", f"{each.name}, peak RSS over {tasks:,}", max(values) / MB, "MB"),
            Sample("W5", f"{each.name}, late RSS / early RSS over {tasks:,}", late / early, "x"),
        ]
    return found


def _rss(running: Running) -> int:
    return int(psutil.Process(running.pid).memory_info().rss)
