"""Virtual time: an event loop that jumps to its next timer, and processes that stop or die in it.

Whatever runs belongs to the process that started it (a context variable). A process has its own
wall clock, can stand still as by SIGSTOP, and dies as by SIGKILL: nothing of it runs again.
"""

import asyncio
import heapq
import itertools
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass, field
from typing import Any

START = 1_780_000_000.0  # the wall clock at the beginning of a simulation, in seconds
MANY = 2_000  # tasks after which those that are done are forgotten


class Deadlock(Exception):
    """Nothing will ever happen again."""


@dataclass(eq=False)
class Process:
    """One simulated process. What it has started stops with it."""

    name: str
    skew: float = 0.0  # seconds that its wall clock is ahead
    paused: bool = False
    dead: bool = False
    over: bool = False
    waiting: list["_Handle | _TimerHandle"] = field(default_factory=list)
    on_death: list[Callable[[], None]] = field(default_factory=list)

    def run(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Start something in this process."""
        context = copy_context()
        context.run(CURRENT.set, self)
        return asyncio.get_running_loop().create_task(work, name=self.name, context=context)

    def kill(self) -> None:
        """As by SIGKILL: no handler, no cleanup."""
        self.dead = True
        for each in self.on_death:
            each()

    def stop(self) -> None:
        """As by SIGSTOP."""
        self.paused = True

    def go_on(self) -> None:
        """As by SIGCONT: everything that came due meanwhile happens now."""
        self.paused = False
        if not self.dead:
            self._take_back()

    def end(self) -> None:
        """The simulation is over: what is left may clean up."""
        self.over = True
        self._take_back()

    def _take_back(self) -> None:
        waiting, self.waiting = self.waiting, []
        asyncio.get_running_loop().take_back(waiting)  # type: ignore[attr-defined]


CURRENT: ContextVar[Process | None] = ContextVar("process", default=None)
NOBODY = Context()  # of what happens in the network and on the servers


def context_of(process: Process | None) -> Context:
    """For what happens in this process' name."""
    if process is None:
        return NOBODY
    context = Context()
    context.run(CURRENT.set, process)
    return context


def _held(handle: "_Handle | _TimerHandle", context: Context) -> bool:
    """True where it may not run: its process is dead, or stands still."""
    process = context.get(CURRENT)
    if process is None or not (process.dead or process.paused) or process.over:
        return False
    process.waiting.append(handle)
    return True


class _Handle(asyncio.Handle):
    def _run(self) -> None:
        if not _held(self, self._context):
            super()._run()


class _TimerHandle(asyncio.TimerHandle):
    def _run(self) -> None:
        if not _held(self, self._context):
            super()._run()


class VirtualLoop(asyncio.BaseEventLoop):
    """Single-threaded and deterministic; `connect` is who answers a connection."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._timers: list[tuple[float, int, _TimerHandle]] = []
        self._numbers = itertools.count()  # what is due at one time happens in the order of asking
        # Held, so that what a dead process leaves behind is not collected in the middle.
        self.tasks: list[asyncio.Task[Any]] = []
        self.set_task_factory(self._task)
        self.connect: Callable[[asyncio.BaseProtocol], Any] | None = None

    def _run_once(self) -> None:
        """Whatever the loop would wait for, the clock jumps to; a seed has 8,000 such turns."""
        ready, timers = self._ready, self._timers  # type: ignore[attr-defined]
        while timers and timers[0][2].cancelled():
            heapq.heappop(timers)
        if not ready:
            if not timers:
                raise Deadlock("nothing is left that could happen")
            self._now = max(self._now, timers[0][0])
        while timers and timers[0][0] <= self._now:
            ready.append(heapq.heappop(timers)[2])
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle.cancelled():
                handle._run()

    def _write_to_self(self) -> None:
        """There is no other thread."""

    def time(self) -> float:
        return self._now

    def _task(
        self, loop: asyncio.AbstractEventLoop, work: Any, context: Context | None = None
    ) -> "asyncio.Task[Any]":
        task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, context=context)
        self.tasks.append(task)
        if len(self.tasks) > MANY:
            self.tasks = [each for each in self.tasks if not each.done()]
        return task

    async def clean_up(self) -> None:
        """Let everything that is left end, also what is dead: nothing of it counts any more."""
        left = [each for each in self.tasks if not each.done()]
        for task in left:
            if task is not asyncio.current_task():
                task.cancel()
        await asyncio.sleep(0.01)

    def wall(self) -> float:
        """The wall clock of the process that asks."""
        process = CURRENT.get()
        return START + self._now + (process.skew if process else 0.0)

    def take_back(self, handles: "list[_Handle | _TimerHandle]") -> None:
        """What was held back, in the order in which it came due."""
        self._ready.extend(handles)  # type: ignore[attr-defined]

    def _call_soon(self, callback: Any, args: Any, context: Context | None) -> asyncio.Handle:
        handle = _Handle(callback, args, self, context)
        self._ready.append(handle)  # type: ignore[attr-defined]
        return handle

    def call_at(
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = _TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._numbers), handle))
        return handle

    def call_soon_threadsafe(
        self, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    async def create_connection(  # type: ignore[override]
        self, protocol_factory: Callable[[], asyncio.BaseProtocol], *_: Any, **__: Any
    ) -> tuple[asyncio.BaseTransport, asyncio.BaseProtocol]:
        """In memory, to the model."""
        assert self.connect is not None
        protocol = protocol_factory()
        transport = await self.connect(protocol)
        return transport, protocol
