"""The load: agents whose output is a function of their input; poisons.py has the others.

Each start is noted in a file of its own, outside of Redis and Postgres.
"""

import asyncio
import hashlib
import json
import os
import time
from datetime import timedelta
from pathlib import Path

from pydantic import BaseModel

from orchestrator import Agent, Alert, Retry, Rule, RunContext

NOTES = "FAULTS_NOTES"  # the variable that names the file


class Job(BaseModel):
    n: int
    seconds: float = 0.0


class Done(BaseModel):
    n: int
    proof: str


def proof(n: int) -> str:
    """What the agents return for `n`, which nobody can have got by accident."""
    return hashlib.sha256(f"aurora {n}".encode()).hexdigest()[:16]


def note(ctx: RunContext) -> None:
    """One line a start; O_APPEND keeps the lines of several processes whole."""
    line = {"id": ctx.task_id, "attempt": ctx.attempt, "pid": os.getpid(), "at": time.time()}
    with Path(os.environ[NOTES]).open("a") as file:
        file.write(json.dumps(line) + "\n")


class Short(Agent[Job, Done]):
    """Waits as long as it is told, and answers."""

    async def run(self, task_input: Job, ctx: RunContext) -> Done:
        note(ctx)
        await asyncio.sleep(task_input.seconds)
        return Done(n=task_input.n, proof=proof(task_input.n))


class Steps(Agent[Job, Done]):
    """Reports its progress three times on the way."""

    async def run(self, task_input: Job, ctx: RunContext) -> Done:
        note(ctx)
        for step in range(3):
            await ctx.progress(step=step)
            await asyncio.sleep(task_input.seconds / 3)
        return Done(n=task_input.n, proof=proof(task_input.n))


class Flaky(Agent[Job, Done]):
    """Fails at its first attempt, so that it waits in Redis for its retry."""

    retry = Retry(base=timedelta(seconds=0.1))

    async def run(self, task_input: Job, ctx: RunContext) -> Done:
        note(ctx)
        if ctx.attempt == 1:
            raise ValueError("not the first time")
        return Done(n=task_input.n, proof=proof(task_input.n))


class Aim(BaseModel):
    n: int
    word: str = ""


class Target(Agent[Aim, Done]):
    """What strangers' entries are for: answers at once."""

    retry = Retry(max_attempts=1)

    async def run(self, task_input: Aim, ctx: RunContext) -> Done:
        del ctx
        return Done(n=task_input.n, proof=proof(task_input.n))


class Size(BaseModel):
    bytes: int


class Bulky(Agent[Size, str]):
    """Returns as much as it is told."""

    retry = Retry(max_attempts=1)

    async def run(self, task_input: Size, ctx: RunContext) -> str:
        del ctx
        return "x" * task_input.bytes


class Guard(Agent[Alert, Done]):
    """Answers at once."""

    retry = Retry(max_attempts=1)

    async def run(self, task_input: Alert, ctx: RunContext) -> Done:
        del task_input, ctx
        return Done(n=0, proof=proof(0))


class ForTheGuard(Rule):
    """The network's alerts that say so."""

    agent = Guard
    signature = "for the guard"


class Detective(Agent[Alert, Done]):
    """Looks at a story, and answers at once."""

    async def run(self, task_input: Alert, ctx: RunContext) -> Done:
        del task_input
        note(ctx)
        return Done(n=0, proof=proof(0))


class OneSource(Rule):
    """Storms, one story for each address."""

    agent = Detective
    signature = "storm"

    def correlation(self, alert: Alert) -> str | None:
        """The address that it came from."""
        return alert.src_ip


GOOD: tuple[type[Agent[Job, Done]], ...] = (Short, Steps)
