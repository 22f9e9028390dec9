"""What the embedded servers have in common: one lifecycle, one directory, one port.

EmbeddedValkey, EmbeddedPostgres and EmbeddedLlama say what to run and how to tell that it is ready.
"""

import contextlib
import logging
import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Self

from orchestrator.embedded.errors import EmbeddedServerFailed, PortInUse
from orchestrator.embedded.ports import free_port, is_free
from orchestrator.embedded.state import StateDirectory
from orchestrator.embedded.tied import Command, TiedProcess, start_tied

# Start-up normally takes 0.1 s; after a crash, gigabytes of log may have to be read again.
READY_SECONDS = 120.0
READY_POLL_SECONDS = 0.01
STILL_WAITING_SECONDS = 5.0
PORT_ATTEMPTS = 3

logger = logging.getLogger(__name__)


class EmbeddedServer(ABC):
    """A server process that ends with this process, however this process ends.

    All methods block: call them in a thread, or before there is an event loop. Not for
    several threads at a time on one object. It never restarts a server on its own.
    """

    title: ClassVar[str]
    # What the log says then. The operating system's words; the locale is C (tied.py).
    port_taken: ClassVar[str] = "Address already in use"

    def __init__(
        self, state_dir: Path, *, port: int = 0, lock_seconds: float | None = None
    ) -> None:
        self._state = StateDirectory(state_dir.absolute(), lock_seconds)
        self._wanted_port = port
        self._port = 0  # the one last used
        self._process: TiedProcess | None = None

    def start(self) -> str:
        """Start the server, wait until it answers, and return its URL.

        With `port=0` the port of an earlier start is taken again if it is still free. Raises
        DataDirectoryBusy, DataDirectoryUnusable, PortInUse, EmbeddedServerMissing or
        EmbeddedServerFailed.
        """
        if self._process is not None and self._process.running:
            return self._url(self._port)
        self.stop()
        began = time.monotonic()
        with self._state.locked() as lock:
            self._state.begin_log()
            self._prepare(lock)
            self._process = self._launch(lock)
            self._state.note_holder(
                lock,
                f"process {os.getpid()} (its {self.title} server is process {self._process.pid})",
            )
        logger.info(
            "%s is ready on port %d after %.2f s",
            self.title, self._port, time.monotonic() - began,
            extra={"event": "embedded.started", "port": self._port, "pid": self._process.pid},
        )  # fmt: skip
        return self._url(self._port)

    def stop(self) -> None:
        """Stop the server in good order; nothing happens when it does not run."""
        process, self._process = self._process, None
        if process is not None and process.stop() < 0:
            self._finish(process.pid)

    def kill(self) -> None:
        """SIGKILL the server, as a crash would; `start()` brings it back on the same port."""
        process, self._process = self._process, None
        if process is None:
            raise EmbeddedServerFailed(self.title, "is not running", log=self._state.log)
        if process.kill() < 0:
            self._finish(process.pid)

    @property
    def pid(self) -> int:
        """The server's process id (the postmaster's). Raises when the server does not run."""
        if self._process is None or not self._process.running:
            raise EmbeddedServerFailed(self.title, "is not running", log=self._state.log)
        return self._process.pid

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _launch(self, lock: int) -> TiedProcess:
        for port in self._ports():
            process = start_tied(self._command(port), log=self._state.log, lock=lock)
            try:
                self._wait_until_ready(process, port)
            except PortInUse:
                process.stop()
                self._state.begin_log()  # so that the next attempt is judged by its own words
            except BaseException:
                process.stop()
                raise
            else:
                self._port = port
                return process
        raise PortInUse(self.title, self._wanted_port or port)

    def _finish(self, pid: int) -> None:
        """See to the end of a server whose reaper was killed.

        On Linux the kernel has told it to stop. It shares the lock, so while that is held it
        lives, and its pid is still its own.
        """
        if not self._state.wait_until_free():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _ports(self) -> Iterator[int]:
        if self._wanted_port:
            if not is_free(self._wanted_port):
                raise PortInUse(self.title, self._wanted_port)
            yield self._wanted_port
            return
        if self._port and is_free(self._port):
            yield self._port
        for _ in range(PORT_ATTEMPTS):
            yield free_port()

    def _wait_until_ready(self, process: TiedProcess, port: int) -> None:
        deadline = time.monotonic() + READY_SECONDS
        speak_at = time.monotonic() + STILL_WAITING_SECONDS
        while not self._is_ready(process.pid, port):
            now = time.monotonic()
            if not process.running:
                self._explain_end(port)
            if now >= deadline:
                raise self._failure(f"did not answer within {READY_SECONDS:.0f} s")
            if now >= speak_at:
                speak_at = now + STILL_WAITING_SECONDS
                logger.info("still waiting for %s; its log is %s", self.title, self._state.log,
                            extra={"event": "embedded.waiting"})  # fmt: skip
            time.sleep(READY_POLL_SECONDS)

    def _explain_end(self, port: int) -> None:
        if self.port_taken in self._state.log_tail():
            raise PortInUse(self.title, port)
        raise self._failure("ended while it started")

    def _failure(self, why: str) -> EmbeddedServerFailed:
        return EmbeddedServerFailed(
            self.title, why, log=self._state.log, log_tail=self._state.log_tail()
        )

    @abstractmethod
    def _prepare(self, lock: int) -> None:
        """Make the directory ready for `_command`; the lock is held."""

    @abstractmethod
    def _command(self, port: int) -> Command:
        """Say what to run."""

    @abstractmethod
    def _is_ready(self, pid: int, port: int) -> bool:
        """Tell whether this very process answers on this port."""

    @abstractmethod
    def _url(self, port: int) -> str:
        """Return the URL for clients, the password included."""
