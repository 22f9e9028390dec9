"""Agents that the acceptance tests' worker processes load: each does one thing worth breaking.

Every start is written down outside of Redis and Postgres: one line a start, in the ledger file.
"""

import asyncio
import contextlib
import json
import os
import time
from datetime import timedelta
from pathlib import Path

from pydantic import BaseModel

from orchestrator import Agent, Retry, RunContext


class Job(BaseModel):
    n: int = 0
    seconds: float = 0.0
    ledger: str = ""


class Done(BaseModel):
    n: int
    attempt: int
    worker: str


def note(job: Job, ctx: RunContext) -> None:
    """Append this start to the ledger; O_APPEND keeps lines of several processes whole."""
    if job.ledger:
        line = {"n": job.n, "attempt": ctx.attempt, "at": time.time(), "pid": os.getpid(),
                "task_id": ctx.task_id}  # fmt: skip
        with Path(job.ledger).open("a") as ledger:
            ledger.write(json.dumps(line) + "\n")


class Noop(Agent[Job, Done]):
    async def run(self, task_input: Job, ctx: RunContext) -> Done:
        return Done(n=task_input.n, attempt=ctx.attempt, worker=ctx.worker)


class Wait(Agent[Job, Done]):
    async def run(self, task_input: Job, ctx: RunContext) -> Done:
        note(task_input, ctx)
        await asyncio.sleep(task_input.seconds)
        return Done(n=task_input.n, attempt=ctx.attempt, worker=ctx.worker)


class Block(Agent[Job, Done]):
    """Blocks the event loop, as agent code does that calls a synchronous library."""

    async def run(self, task_input: Job, ctx: RunContext) -> Done:
        note(task_input, ctx)
        time.sleep(task_input.seconds)  # noqa: ASYNC251 - the fault under test
        return Done(n=task_input.n, attempt=ctx.attempt, worker=ctx.worker)


class BlockLater(Agent[Job, Done]):
    """Blocks it once it has waited for something, so that the worker reads on already."""

    async def run(self, task_input: Job, ctx: RunContext) -> Done:
        await asyncio.sleep(0.1)
        note(task_input, ctx)
        time.sleep(task_input.seconds)  # noqa: ASYNC251 - the fault under test
        return Done(n=task_input.n, attempt=ctx.attempt, worker=ctx.worker)


class BlockForever(Agent[Job, Done]):
    timeout = timedelta(seconds=1)
    retry = Retry(max_attempts=1)

    async def run(self, task_input: Job, ctx: RunContext) -> Done:
        note(task_input, ctx)
        time.sleep(600)  # noqa: ASYNC251 - the fault under test
        raise AssertionError("unreachable")


class Crash(Agent[Job, Done]):
    """Takes its worker along."""

    async def run(self, task_input: Job, ctx: RunContext) -> Done:
        note(task_input, ctx)
        os._exit(1)


class Stubborn(Agent[Job, Done]):
    """Swallows its cancellation."""

    async def run(self, task_input: Job, ctx: RunContext) -> Done:
        note(task_input, ctx)
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(600)


class FailOnce(Agent[Job, Done]):
    retry = Retry(base=timedelta(milliseconds=100))

    async def run(self, task_input: Job, ctx: RunContext) -> Done:
        note(task_input, ctx)
        if ctx.attempt == 1:
            raise RuntimeError("the first attempt fails")
        return Done(n=task_input.n, attempt=ctx.attempt, worker=ctx.worker)


class InThread(Agent[Job, Done]):
    def run(self, task_input: Job, ctx: RunContext) -> Done:
        time.sleep(task_input.seconds)
        return Done(n=task_input.n, attempt=ctx.attempt, worker=ctx.worker)
