"""W0: how quiet the machine is while all else is measured, so that two runs can be compared.

A virtual machine among busy neighbours is slow in a way of its own: what has rested is cold. So a
process of nothing but the standard library naps and works, and touches memory that has rested.
"""

import asyncio
import sys

from tests.benchmarks.case import Case, Sizes
from tests.benchmarks.figures import Sample
from tests.benchmarks.ground import Ground

PROBE = """
import time

def work():
    total = 0
    for each in range(1_000):
        total += each

def touch(pages, memory):
    began = time.perf_counter()
    for place in range(0, pages * 4096, 4096):
        memory[place]
    return (time.perf_counter() - began) / pages * 1e6

began = time.process_time()
for _ in range(100):
    time.sleep(0.02)
    work()
wake_up = (time.process_time() - began) / 100 * 1e3
memory, pages = bytearray(16 * 2**20), 4096
touch(pages, memory)
hot = min(touch(pages, memory) for _ in range(5))
rested = []
for _ in range(3):
    time.sleep(0.5)
    rested.append(touch(pages, memory))
print(wake_up, hot, sorted(rested)[1])
"""


def cases(sizes: Sizes, *, peers: bool) -> list[Case]:
    """One; four seconds a round."""
    del sizes, peers
    return [Case("W0 machine", _probe)]


async def _probe(ground: Ground) -> list[Sample]:
    del ground  # no server is asked
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROBE, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    wake_up, hot, rested = map(float, said.split())
    return [
        Sample("W0", "CPU of a wake-up", wake_up, "ms"),
        Sample("W0", "touching a page, in use", hot, "µs"),
        Sample(
            "W0", "touching a page, rested for 0.5 s", rested, "µs", "W0 touching a page, in use"
        ),
    ]
