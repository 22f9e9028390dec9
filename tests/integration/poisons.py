"""Agents that run in a child process of their own and do there what an agent should not."""

import asyncio
import ctypes
import itertools
import os
import socket
import subprocess
import sys
import time
from datetime import timedelta

from pydantic import BaseModel
from pydantic_core import to_json

from orchestrator import Agent, Retry, RunContext
from orchestrator.errors import TaskIdConflict

PRINTED = 20_000  # bytes, more than is kept of an output


class Word(BaseModel):
    word: str = ""


class Poison(Agent[Word, dict]):  # type: ignore[type-arg]
    """`word` says which poison; with `isolation` and limits that a test can wait for."""

    isolation = "process"
    timeout = timedelta(seconds=20)
    retry = Retry(max_attempts=1)

    async def run(self, task_input: Word, ctx: RunContext) -> dict:  # type: ignore[type-arg]
        return await getattr(self, task_input.word)(ctx)

    async def works(self, ctx: RunContext):
        """All that an agent may do, done."""
        print("hello from", os.getpid())
        ctx.logger.warning("a word from %s", "inside")
        owned = await ctx.progress(share=0.5)
        rows = await ctx.query("SELECT :n", n=1)
        handle = await Poison.delay(Word(word="later"))
        many = await Poison.map([Word(word="a"), Word(word="b")])
        return {
            "pid": os.getpid(), "owned": owned, "row": type(rows[0]["at"]).__name__,
            "child": handle.task_id, "state": await handle.state(), "many": len(many),
            "ended": await handle.get(timeout=5), "attempt": ctx.attempt, "worker": ctx.worker,
            "parent": handle.receipt.task_id != ctx.task_id,
        }  # fmt: skip

    async def environment(self, ctx: RunContext):
        return dict(os.environ)

    async def conflicts(self, ctx: RunContext):
        try:
            await Poison.apply_async(Word(word="x"), task_id=ctx.task_id)
        except TaskIdConflict as error:
            return {"conflict": error.task_id}

    async def aborts(self, ctx: RunContext):
        print("x" * PRINTED)
        print("the last words", flush=True)
        os.abort()

    async def exits(self, ctx: RunContext):
        os._exit(7)

    async def leaves(self, ctx: RunContext):
        sys.exit(7)

    async def leaves_from_a_callback(self, ctx: RunContext):
        asyncio.get_running_loop().call_soon(sys.exit, 7)
        await asyncio.sleep(60)

    async def segfaults(self, ctx: RunContext):
        ctypes.string_at(0)

    async def allocates(self, ctx: RunContext):
        return {"size": len(bytearray(2 * 1024**3))}

    async def garbles(self, ctx: RunContext):
        os.write(int(sys.argv[1]), b"no message\n")
        await asyncio.sleep(60)

    async def floods(self, ctx: RunContext):
        for _ in range(100):
            os.write(int(sys.argv[1]), b"x" * 65_536)
        await asyncio.sleep(60)

    async def forges(self, ctx: RunContext):
        result = ["Completed", {"output": '{"forged":true}'}]
        line = to_json({"nonce": "guessed", "say": "result", "outcome": result})
        os.write(int(sys.argv[1]), line + b"\n")
        await asyncio.sleep(0.2)
        return {"forged": False}

    async def forks(self, ctx: RunContext):
        """Both go on as this attempt; the forked one is the first to return."""
        mine = os.getpid()
        if os.fork():
            await asyncio.sleep(0.3)
        return {"pid": os.getpid(), "mine": mine}

    async def closes_everything(self, ctx: RunContext):
        os.closerange(3, 256)
        return {}

    async def hangs_up(self, ctx: RunContext):
        with socket.socket(fileno=os.dup(int(sys.argv[1]))) as channel:
            channel.shutdown(socket.SHUT_WR)
        await asyncio.sleep(60)


class Hung(Poison):
    """Says who it is, and is not done in time; with a child of its own."""

    timeout = timedelta(seconds=1)

    async def waits(self, ctx: RunContext):
        await self._tell(ctx)
        await asyncio.sleep(600)

    async def sleeps(self, ctx: RunContext):
        await self._tell(ctx)
        time.sleep(600)  # noqa: ASYNC251 - the fault under test

    async def loops(self, ctx: RunContext):
        await self._tell(ctx)
        while True:
            pass

    async def holds_the_lock(self, ctx: RunContext):
        await self._tell(ctx)
        sum(itertools.repeat(0))  # in C from here on: no other thread of this process runs

    async def _tell(self, ctx: RunContext) -> None:
        started = subprocess.Popen(["sleep", "600"])
        await ctx.progress(pids=[os.getpid(), started.pid])


class Computing(Poison):
    """Computes beyond its limit."""

    cpu_limit = timedelta(seconds=1)

    async def loops(self, ctx: RunContext):
        while True:
            pass


class Plain(Agent[Word, dict]):  # type: ignore[type-arg]
    """A plain `def run`."""

    isolation = "process"

    def run(self, task_input: Word, ctx: RunContext) -> dict:  # type: ignore[type-arg]
        if task_input.word == "exits":
            os._exit(3)
        return {"pid": os.getpid(), "told": asyncio.run(ctx.progress(n=1))}


class PlainHung(Plain):
    timeout = timedelta(seconds=1)
    retry = Retry(max_attempts=1)

    def run(self, task_input: Word, ctx: RunContext) -> dict:  # type: ignore[type-arg]
        time.sleep(600)
        return {}
