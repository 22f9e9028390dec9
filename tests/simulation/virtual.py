"""Virtual time: an event loop that jumps to its next timer, and processes that stop or die in it.

Whatever runs belongs to the process that started it (a context variable). A process has its own
wall clock, can stand still as by SIGSTOP, and dies as by SIGKILL: nothing of it runs again.
"""

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass, field
from heapq import heappop, heappush
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
    held: bool = False  # nothing of it runs
    over: bool = False  # the simulation is
    waiting: list["_Handle"] = field(default_factory=list)
    on_death: list[Callable[[], None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Whatever reaches it from outside happens in its name."""
        self.context = Context()
        self.context.run(CURRENT.set, self)

    def run(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Start something in this process."""
        context = copy_context()
        context.run(CURRENT.set, self)
        return asyncio.get_running_loop().create_task(work, name=self.name, context=context)

    def kill(self) -> None:
        """As by SIGKILL: no handler, no cleanup."""
        self.dead = True
        self.held = not self.over
        for each in self.on_death:
            each()

    def stop(self) -> None:
        """As by SIGSTOP."""
        self.paused = True
        self.held = not self.over

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
        self.held = False
        waiting, self.waiting = self.waiting, []
        asyncio.get_running_loop().take_back(waiting)  # type: ignore[attr-defined]


CURRENT: ContextVar[Process | None] = ContextVar("process", default=None)
NOBODY = Context()  # of what happens in the network and on the servers


class _Handle(asyncio.TimerHandle):
    """A callback. Half as much work as the library's own, which asks for debugging all the time."""

    __slots__ = ()

    def __init__(self, callback: Any, args: Any, context: Context | None) -> None:
        self._callback = callback
        self._args = args
        self._context = copy_context() if context is None else context
        self._cancelled = False

    def cancel(self) -> None:
        self._cancelled = True
        self._callback = self._args = None  # type: ignore[assignment]


class VirtualLoop(asyncio.BaseEventLoop):
    """Single-threaded and deterministic; `connect` is who answers a connection."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._timers: list[tuple[float, int, _Handle]] = []
        self._numbers = itertools.count()  # what is due at one time happens in the order of asking
        # Held, so that what a dead process leaves behind is not collected in the middle.
        self.tasks: list[asyncio.Task[Any]] = []
        self.set_task_factory(self._task)
        self.connect: Callable[[asyncio.BaseProtocol], Any] | None = None

    def _run_once(self) -> None:
        """Until somebody stops it. Whatever the loop would wait for, the clock jumps to.

        Turns are as in a real loop: what a callback asks for comes after what was due already. A
        seed has 8,000 of them with a callback or two each, hence all in one function.
        """
        ready, timers = self._ready, self._timers  # type: ignore[attr-defined]
        while not self._stopping:  # type: ignore[attr-defined]
            while timers and timers[0][2]._cancelled:
                heappop(timers)
            if not ready:
                if not timers:
                    raise Deadlock("nothing is left that could happen")
                self._now = max(self._now, timers[0][0])
            while timers and timers[0][0] <= self._now:
                ready.append(heappop(timers)[2])
            for _ in range(len(ready)):
                handle = ready.popleft()
                if handle._cancelled:
                    continue
                context = handle._context
                process = context.get(CURRENT)
                if process is not None and process.held:
                    process.waiting.append(handle)
                    continue
                try:
                    context.run(handle._callback, *handle._args)
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as error:  # noqa: BLE001 - as a loop does
                    said = f"Exception in callback {handle._callback}"
                    self.call_exception_handler({"message": said, "exception": error})

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

    def run_in(self, context: Context, callback: Any, *args: Any) -> None:
        """At once in this process' name; where it stands still, when it goes on."""
        process = context.get(CURRENT)
        if process is not None and process.held:
            process.waiting.append(_Handle(callback, args, context))
        else:
            context.run(callback, *args)

    def take_back(self, handles: "list[_Handle]") -> None:
        """What was held back, in the order in which it came due."""
        self._ready.extend(handles)  # type: ignore[attr-defined]

    def call_soon(
        self, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = _Handle(callback, args, context)
        self._ready.append(handle)  # type: ignore[attr-defined]
        return handle

    def call_later(
        self, delay: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = _Handle(callback, args, context)
        heappush(self._timers, (when, next(self._numbers), handle))
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
