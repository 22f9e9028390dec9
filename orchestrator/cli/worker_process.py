"""`aurora dev`'s worker: a process of its own, replaced when an agent's file changes.

A replaced worker finishes what it has in hand, or hands it back after its grace time, while the
new one reads on: a reload never loses a task. Nobody may submit to agents that only the new one
knows before the old one reads no longer: it would set those tasks aside as unknown.
"""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from orchestrator.cli.tied import Tied, start_tied
from orchestrator.errors import ConfigurationError
from orchestrator.runtime.service import wait_at_most
from orchestrator.streams.consumer import BLOCK

logger = logging.getLogger("aurora.dev")

PAUSE_AFTER_CRASH = 1.0  # seconds
BEYOND_GRACE = 5.0  # seconds for a worker to end after its grace time
# A read that was under way at SIGTERM ends within BLOCK; as much again for a busy machine.
READS_ON = 2 * BLOCK  # seconds
SETTLE_MS = 300  # an editor writes a file in several steps


class WorkerProcess:
    """Keeps one worker running. A service beside those of the parent."""

    name = "worker process"

    def __init__(self, environment: Mapping[str, str], *, grace: timedelta) -> None:
        """Store; `environment` is added to ours."""
        self.environment = environment
        self._current: Tied | None = None
        self._patience = grace.total_seconds() + BEYOND_GRACE
        self._stopping = asyncio.Event()
        self._replacing = asyncio.Event()
        self._leaving: set[asyncio.Task[None]] = set()

    @property
    def is_ready(self) -> bool:
        """True once the worker that runs now reads."""
        return self._current is not None and self._current.is_ready()

    def stop(self) -> None:
        """End the worker in order."""
        self._stopping.set()

    async def replace(self) -> None:
        """Start another, and let this one finish; returns when it reads no longer."""
        old, self._current = self._current, None
        self._replacing.set()
        if old is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(old.process.wait(), READS_ON)

    async def run(self) -> None:
        """Have a worker until stopped."""
        while not self._stopping.is_set():
            self._replacing.clear()
            self._current = await start_tied(
                ["worker", "--log-level", "warning"], environment=self.environment
            )
            process = self._current.process
            if await self._ended_by_itself(process):
                logger.warning(
                    "the worker ended with code %d; another starts", process.returncode,
                    extra={"event": "worker.ended"},
                )  # fmt: skip
                await wait_at_most(PAUSE_AFTER_CRASH, self._stopping)
            else:
                leaving = asyncio.create_task(self._leave(process))
                self._leaving.add(leaving)
                leaving.add_done_callback(self._leaving.discard)
        if self._leaving:
            await asyncio.wait(self._leaving)

    async def _ended_by_itself(self, process: asyncio.subprocess.Process) -> bool:
        ended = asyncio.create_task(process.wait())
        others = [asyncio.create_task(each.wait()) for each in (self._stopping, self._replacing)]
        await asyncio.wait({ended, *others}, return_when=asyncio.FIRST_COMPLETED)
        for each in others:
            each.cancel()
        return ended.done()

    async def _leave(self, process: asyncio.subprocess.Process) -> None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), self._patience)
            except TimeoutError:
                process.kill()
                await process.wait()


class Reloader:
    """Watches the agents' files; on a change calls `reload`. A service too."""

    name = "reload"

    def __init__(
        self, folders: Sequence[Path], reload: Callable[[Sequence[Path]], Awaitable[None]]
    ) -> None:
        """Store. What `reload` refuses with ConfigurationError is said, and nothing changes."""
        self.folders = folders
        self.reload = reload
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Watch no longer."""
        self._stop.set()

    async def run(self) -> None:
        """Watch until stopped."""
        try:
            from watchfiles import PythonFilter, awatch
        except ImportError:
            logger.warning(
                "agents do not reload: pip install 'aurora-orchestrator[embedded]'",
                extra={"event": "reload.missing"},
            )
            await self._stop.wait()
            return
        async for changes in awatch(
            *self.folders, watch_filter=PythonFilter(), debounce=SETTLE_MS,
            stop_event=self._stop, raise_interrupt=False,
        ):  # fmt: skip
            changed = sorted({Path(path) for _, path in changes})
            shown = ", ".join(path.name for path in changed)
            try:
                await self.reload(changed)
            except ConfigurationError as error:
                logger.error(  # noqa: TRY400 - the file and line are in it; our stack is no news
                    "%s changed, and the agents as they were go on: %s", shown, error,
                    extra={"event": "agents.unreadable"},
                )  # fmt: skip
            else:
                logger.info(
                    "%s changed: agents reloaded", shown, extra={"event": "agents.reloaded"}
                )
