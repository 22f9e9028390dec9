"""The agents of the benchmark: one that does nothing, one that waits. About 300 B in, 200 B out."""

import asyncio
import time

from pydantic import BaseModel

from orchestrator import Agent, RunContext

WORDS = "ET SCAN Suspicious inbound to PostgreSQL port 5432; a host that was never seen before. "


class Job(BaseModel):
    """`note` brings the message to its size."""

    n: int = 0
    seconds: float = 0.0
    note: str = ""


class Done(BaseModel):
    """`began` is on the clock that all processes of a machine share (time.monotonic)."""

    n: int
    began: float
    note: str


def job(*, seconds: float = 0.0, size: int = 300) -> Job:
    """An input of about `size` bytes of JSON."""
    wanted = max(0, size - 35)
    return Job(seconds=seconds, note=(WORDS * (wanted // len(WORDS) + 1))[:wanted])


NOTE = (WORDS * 2)[:150]


class Noop(Agent[Job, Done]):
    """What is measured is everything but this."""

    async def run(self, task_input: Job, ctx: RunContext) -> Done:
        return Done(n=task_input.n, began=time.monotonic(), note=NOTE)


class Wait(Agent[Job, Done]):
    """Stands for an agent that waits for a model's answer."""

    async def run(self, task_input: Job, ctx: RunContext) -> Done:
        began = time.monotonic()
        await asyncio.sleep(task_input.seconds)
        return Done(n=task_input.n, began=began, note=NOTE)
