"""The load's poisons: agents that end or seize the process that they run in, in it or alone."""

import asyncio
import ctypes
import os
import signal
import sys
import time
from datetime import timedelta

from orchestrator import Agent, Retry, RunContext
from orchestrator.agent import Isolation
from tests.faults.agents import Done, Job, note, proof

LONG = 600.0  # seconds, far beyond every timeout
LIVES_ON = 5.0  # seconds of a daemon; nothing of a run is to be left behind for long
ALLOCATED = 2 * 1024**3  # bytes
DESCRIPTORS = 4096


class Poison(Agent[Job, Done]):
    """The ways to go; a second attempt after a timeout would only take longer."""

    timeout = timedelta(seconds=1)
    retry = Retry(max_attempts=1)


class Abort(Poison):
    async def run(self, task_input: Job, ctx: RunContext) -> Done:
        note(ctx)
        os.abort()


class Exit(Poison):
    async def run(self, task_input: Job, ctx: RunContext) -> Done:
        note(ctx)
        os._exit(7)


class Spin(Poison):
    async def run(self, task_input: Job, ctx: RunContext) -> Done:
        note(ctx)
        while True:
            pass


class Sleep(Poison):
    async def run(self, task_input: Job, ctx: RunContext) -> Done:
        note(ctx)
        time.sleep(LONG)  # noqa: ASYNC251 - the fault
        raise AssertionError("it slept to the end")


class Leave(Poison):
    async def run(self, task_input: Job, ctx: RunContext) -> Done:
        note(ctx)
        sys.exit(7)


class Interrupt(Poison):
    async def run(self, task_input: Job, ctx: RunContext) -> Done:
        note(ctx)
        raise KeyboardInterrupt


class Segfault(Poison):
    async def run(self, task_input: Job, ctx: RunContext) -> Done:
        note(ctx)
        ctypes.string_at(0)
        raise AssertionError("it can be read")


class Allocate(Poison):
    async def run(self, task_input: Job, ctx: RunContext) -> Done:
        note(ctx)
        held = bytearray(ALLOCATED)
        raise MemoryError(f"{len(held)} bytes, and one more")


class Daemonise(Poison):
    async def run(self, task_input: Job, ctx: RunContext) -> Done:
        note(ctx)
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                time.sleep(LIVES_ON)  # noqa: ASYNC251 - the daemon, which has no loop to block
        os._exit(0)


class CloseAll(Poison):
    async def run(self, task_input: Job, ctx: RunContext) -> Done:
        note(ctx)
        os.closerange(3, DESCRIPTORS)
        await asyncio.sleep(LONG)
        raise AssertionError("it waited to the end")


class KillGroup(Poison):
    async def run(self, task_input: Job, ctx: RunContext) -> Done:
        note(ctx)
        os.killpg(0, signal.SIGKILL)
        raise AssertionError("it lives")


class Fork(Agent[Job, Done]):
    """No poison: both copies return, the forked one first, and one result is the right one."""

    retry = Retry(max_attempts=1)

    async def run(self, task_input: Job, ctx: RunContext) -> Done:
        note(ctx)
        mine = os.getpid()
        if os.fork():
            await asyncio.sleep(0.2)
        return Done(n=task_input.n, proof=proof(task_input.n) if os.getpid() == mine else "forked")


class AbortAlone(Abort):
    isolation = Isolation.PROCESS


class ExitAlone(Exit):
    isolation = Isolation.PROCESS


class SpinAlone(Spin):
    isolation = Isolation.PROCESS


class SleepAlone(Sleep):
    isolation = Isolation.PROCESS


class LeaveAlone(Leave):
    isolation = Isolation.PROCESS


class InterruptAlone(Interrupt):
    isolation = Isolation.PROCESS


class SegfaultAlone(Segfault):
    isolation = Isolation.PROCESS


class AllocateAlone(Allocate):
    isolation = Isolation.PROCESS


class DaemoniseAlone(Daemonise):
    isolation = Isolation.PROCESS


class CloseAllAlone(CloseAll):
    isolation = Isolation.PROCESS


class KillGroupAlone(KillGroup):
    isolation = Isolation.PROCESS


class ForkAlone(Fork):
    isolation = Isolation.PROCESS


IN_WORKER: tuple[type[Poison], ...] = (
    Abort,
    Exit,
    Spin,
    Sleep,
    Leave,
    Interrupt,
    Segfault,
    Allocate,
    Daemonise,
    CloseAll,
    KillGroup,
)
ALONE: tuple[type[Poison], ...] = (
    AbortAlone,
    ExitAlone,
    SpinAlone,
    SleepAlone,
    LeaveAlone,
    InterruptAlone,
    SegfaultAlone,
    AllocateAlone,
    DaemoniseAlone,
    CloseAllAlone,
    KillGroupAlone,
)
POISONS = IN_WORKER + ALONE
# Python can still tell of these: they fail with their error. The others are dead letters.
TOLD = (Spin, Sleep, Leave, Interrupt, Allocate)
