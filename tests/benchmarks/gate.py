"""Holds a process that has loaded everything until the clock starts. Standard library only.

So that a drain is measured from its first moment, and never a process' start.
"""

import asyncio
import os
from pathlib import Path

READY, GATE = "BENCH_READY", "BENCH_GATE"  # files: "I could begin", "begin"
LOOK = 0.002  # seconds


async def at_gate() -> None:
    """Say that this process is ready, and wait until it may begin; at once where none is set."""
    if READY not in os.environ:
        return
    Path(os.environ[READY]).touch()
    gate = Path(os.environ[GATE])
    while not gate.exists():  # noqa: ASYNC110 - another process opens it
        await asyncio.sleep(LOOK)
