"""A worker that cannot outlive the process that started it, `aurora dev` or the demo.

Unlike `embedded/reaper.py` there is no process in between: a worker knows how to end itself.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import threading
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping, Sequence
from typing import IO

PARENT = "AURORA_DEV_PARENT"  # the pid that the child is tied to
READY = "AURORA_DEV_READY"  # the file descriptor on which the child says that it is ready
PR_SET_PDEATHSIG = 1


class Tied:
    """A running `aurora <arguments>`."""

    def __init__(self, process: Process, ready: int) -> None:
        """Store. `ready`: our end of the pipe."""
        self.process = process
        self._ready: int | None = ready
        self._said = b""

    @property
    def pid(self) -> int:
        return self.process.pid

    def is_ready(self) -> bool:
        """True once it has found its servers well and begins to work."""
        if self._ready is not None:
            with contextlib.suppress(BlockingIOError):
                self._said = os.read(self._ready, 1)  # nothing: it ended before it was ready
                os.close(self._ready)
                self._ready = None
        return bool(self._said)


async def start_tied(
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str],
    output: IO[bytes] | None = None,
) -> Tied:
    """Start `aurora <arguments>`; call from the main thread, whose end is what the kernel watches.

    `output`: where its stdout and stderr go; None: where ours go.
    """
    readable, writable = os.pipe()
    os.set_blocking(readable, False)
    ties = {PARENT: str(os.getpid()), READY: str(writable)}
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "orchestrator", *arguments,
            stdin=PIPE, stdout=output, stderr=output, pass_fds=(writable,),
            env={**os.environ, **environment, **ties},
            # Out of the terminal's group: Ctrl-C is ours, and we stop the child in order.
            start_new_session=True,
        )  # fmt: skip
    finally:
        os.close(writable)
    return Tied(process, readable)


def tie_to_parent() -> None:
    """End when the parent ends, if `start_tied` started us; call first thing.

    Without a grace time: what was in hand goes to another worker when its lease runs out.
    """
    parent = os.environ.pop(PARENT, None)
    if parent is None:
        return
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(parent):  # it died before the line above took effect
        os._exit(1)
    threading.Thread(target=_end_with_pipe, name="parent", daemon=True).start()


def say_ready() -> None:
    """Tell whoever tied us that work begins; nothing where nobody did."""
    # Gone from the environment, so that what an agent starts does not say it again.
    ready = os.environ.pop(READY, None)
    if ready is not None:
        with contextlib.suppress(BrokenPipeError):
            os.write(int(ready), b"1")
        os.close(int(ready))


def _end_with_pipe() -> None:
    # Where there is no PR_SET_PDEATHSIG (macOS) the pipe alone tells us. The parent writes nothing.
    while os.read(0, 1):
        pass
    os._exit(1)
