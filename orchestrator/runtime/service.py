"""One lifecycle for everything that runs: start together, stop in order, fail loudly."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from orchestrator.errors import ConfigurationError, Overloaded, Unavailable

logger = logging.getLogger("aurora.service")

OUTAGE_PAUSE = 1.0  # seconds between tries while a server is away


class Service(Protocol):
    """Something with a lifetime. `stop` asks; `run` returns when it has stopped."""

    name: str

    async def run(self) -> None:
        """Work until stopped."""
        ...

    def stop(self) -> None:
        """Ask `run` to return; never blocks, may be called twice."""
        ...


class Stop:
    """A stop flag that loops can also sleep on."""

    def __init__(self) -> None:
        """Not stopped."""
        self._event = asyncio.Event()

    def set(self) -> None:
        """Stop."""
        self._event.set()

    def __bool__(self) -> bool:
        return self._event.is_set()

    async def sleep(self, seconds: float) -> None:
        """Sleep, or return at once when stopped."""
        await wait_at_most(seconds, self._event)


async def wait_at_most(seconds: float, event: asyncio.Event) -> None:
    """Wait for the event, or until so many seconds have passed."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):  # of `wait_for` each wait would be a task
            await event.wait()


async def run_services(groups: Sequence[Sequence[Service]], *, stopped: asyncio.Event) -> None:
    """Run all until `stopped` is set or one of them ends by an error, which is raised.

    The groups are stopped in the order given, the services of one together: what takes work in
    first, what records it last.
    """
    running = [
        {asyncio.create_task(service.run(), name=service.name): service for service in group}
        for group in groups
    ]
    everything = [task for group in running for task in group]
    waiting = asyncio.create_task(stopped.wait(), name="stop signal")
    await asyncio.wait({*everything, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    for group in running:
        for service in group.values():
            service.stop()
        if group:
            await asyncio.wait(group)
    for task in everything:
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error


async def every(
    seconds: float, work: Callable[[], Awaitable[float | None]], *, stop: Stop, name: str
) -> None:
    """The one timed loop: `work` again and again, servers that are away waited out.

    `work` may return the seconds until it should run next, if that is sooner. A surprise is
    logged with its stack and the loop goes on: one bad row must not stop the scheduler.
    """
    away = False
    while not stop:
        began = time.monotonic()
        pause = seconds
        try:
            sooner = await work()
            if sooner is not None:
                pause = min(seconds, max(0.0, sooner))
            if away:
                logger.info("%s goes on", name, extra={"event": "service.back"})
            away = False
        except (Unavailable, Overloaded) as error:
            if not away:
                logger.warning("%s waits: %s", name, error, extra={"event": "service.away"})
            away, pause = True, max(seconds, OUTAGE_PAUSE)
        except ConfigurationError:
            raise
        except Exception:
            logger.exception("%s: surprised; goes on", name, extra={"event": "service.surprised"})
            pause = max(seconds, OUTAGE_PAUSE)
        await stop.sleep(max(0.0, pause - (time.monotonic() - began)))
