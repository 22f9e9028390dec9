"""One child process as its worker holds it: its channel, the end of its output, and its death.

Knows nothing of agents or tasks; `isolated.py` does.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
from typing import Any

from orchestrator.runtime.dialogue import decode

logger = logging.getLogger("aurora.child")

TAIL = 8 * 1024  # bytes of output that are kept: a Python traceback is at the end
LAST_WORDS = 2.0  # seconds from the channel's end to the process' own
CHUNK = 64 * 1024  # bytes a read of its output
SHOWN = 1_000  # bytes of a line of its output in our log
# Aurora's own passwords, whether they stand in our settings or in the drivers' own variables.
WITHHELD = ("AURORA_", "PGPASS", "REDISCLI_AUTH")

_HINTS = {
    signal.SIGXCPU: " (its cpu_limit)",
    # Its own uplink kills it where its channel is gone, whoever closed it.
    signal.SIGKILL: " (by the kernel where memory ran out, by hand, or as it lost its channel)",
}


class ChildProcess:
    """A running child in a session of its own. Whoever started it calls `end`, whatever happens."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        lines: asyncio.StreamReader,
        channel: asyncio.StreamWriter,
        output: int,
    ) -> None:
        """Store."""
        self.pid = process.pid
        self._process = process
        self._lines = lines
        self._channel = channel
        self._output = output  # the reading end of its stdout and stderr
        self._tail = b""
        self._line = b""  # the beginning of one, in our log when it is whole
        self._exited = asyncio.create_task(process.wait())
        # What it left running may hold its end of the channel: without this we would read for ever.
        self._exited.add_done_callback(lambda _: self._kill())
        asyncio.get_running_loop().add_reader(output, self._hear_output)

    @classmethod
    async def start(cls, module: str, *, limit: int) -> "ChildProcess":
        """Start `python -m module FD`; `limit`: bytes of the longest line that it may say."""
        ours, theirs = socket.socketpair()
        with theirs:
            lines, channel = await asyncio.open_connection(sock=ours, limit=limit)
            reading, writing = os.pipe()
            os.set_blocking(reading, False)
            try:
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-P", "-m", module, str(theirs.fileno()),
                    stdin=subprocess.DEVNULL, stdout=writing, stderr=writing,
                    pass_fds=(theirs.fileno(),), start_new_session=True,
                    env={k: v for k, v in os.environ.items() if not k.startswith(WITHHELD)},
                )  # fmt: skip
            except BaseException:
                channel.close()  # a child that has started all the same ends with it
                os.close(reading)
                raise
            finally:
                os.close(writing)
        return cls(process, lines, channel, reading)

    async def hear(self) -> dict[str, Any] | None:
        """The next thing that it says; None once it is gone. Raises ValueError."""
        try:
            line = await self._lines.readline()
        except ConnectionError:
            return None
        return decode(line) if line.endswith(b"\n") else None

    async def say(self, line: bytes) -> None:
        """Say something to it; what is gone does not hear."""
        with contextlib.suppress(ConnectionError):
            self._channel.write(line)
            await self._channel.drain()

    async def how_it_ended(self) -> str:
        """Signal or exit code in words, once it has ended; waits a moment for that."""
        done, _ = await asyncio.wait({self._exited}, timeout=LAST_WORDS)
        if not done:
            return "closed its channel to the worker and ran on"
        code = self._exited.result()
        if code >= 0:
            return f"ended with exit code {code} and without a result"
        with contextlib.suppress(ValueError):
            number = signal.Signals(-code)
            return f"ended by {number.name}{_HINTS.get(number, '')}"
        return f"ended by signal {-code}"

    def tail(self) -> str:
        """The end of what it wrote to stdout and stderr."""
        while self._hear_output():
            pass
        return self._tail.decode("utf-8", "backslashreplace")

    async def end(self) -> None:
        """Kill it and all that it started in its session; returns when it is gone."""
        if not self._exited.done():
            self._kill()
        await self._exited
        asyncio.get_running_loop().remove_reader(self._output)
        os.close(self._output)
        self._channel.close()
        with contextlib.suppress(ConnectionError):
            await self._channel.wait_closed()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def _hear_output(self) -> bool:
        """Take what there is; False when there was nothing."""
        try:
            chunk = os.read(self._output, CHUNK)
        except BlockingIOError:
            return False
        if not chunk:
            asyncio.get_running_loop().remove_reader(self._output)
            return False
        self._tail = (self._tail + chunk)[-TAIL:]
        if logger.isEnabledFor(logging.DEBUG):
            *lines, rest = (self._line + chunk).split(b"\n")
            self._line = rest[:SHOWN]
            for line in lines:
                shown = line[:SHOWN].decode("utf-8", "backslashreplace")
                logger.debug("child %d: %s", self.pid, shown, extra={"event": "child.printed"})
        return True
