"""What runs in a simulation: short and long runs, failures, and one that ends its process."""

import asyncio
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta
from typing import NamedTuple

from pydantic import BaseModel

from orchestrator import Agent, Retry, RunContext
from orchestrator.registry import AgentRegistry
from tests.simulation.virtual import CURRENT


class Job(BaseModel):
    n: int
    seconds: float = 0.0
    failures: int = 0  # attempts that raise before one succeeds


class Done(BaseModel):
    n: int
    attempt: int


class Start(NamedTuple):
    task_id: str
    attempt: int
    process: str
    at: float


@dataclass
class Notes:
    """What the agents have seen, outside of every process."""

    starts: list[Start] = field(default_factory=list)

    def note(self, ctx: RunContext) -> None:
        """A start."""
        process = CURRENT.get()
        name = process.name if process else "nobody"
        now = asyncio.get_running_loop().time()
        self.starts.append(Start(ctx.task_id, ctx.attempt, name, now))


NOTES: ContextVar[Notes] = ContextVar("notes")


class Plain(Agent[Job, Done]):
    """Takes its time, fails as often as it is told, and answers."""

    retry = Retry(max_attempts=4, jitter=lambda: 0.5)
    timeout = timedelta(seconds=30)

    async def run(self, task_input: Job, ctx: RunContext) -> Done:
        NOTES.get().note(ctx)
        await asyncio.sleep(task_input.seconds)
        if ctx.attempt <= task_input.failures:
            raise ValueError("as it was told")
        return Done(n=task_input.n, attempt=ctx.attempt)


class Telling(Plain):
    """Tells how far it has come."""

    async def run(self, task_input: Job, ctx: RunContext) -> Done:
        await ctx.progress(step=1)
        return await super().run(task_input, ctx)


class Poison(Plain):
    """Its process dies of it, wherever it runs."""

    async def run(self, task_input: Job, ctx: RunContext) -> Done:
        NOTES.get().note(ctx)
        process = CURRENT.get()
        assert process is not None
        process.kill()
        await asyncio.sleep(0)  # and nothing after it
        raise AssertionError("a dead process goes on")


REGISTRY = AgentRegistry([Plain, Telling, Poison])
