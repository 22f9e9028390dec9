"""A child process that cannot outlive this one: the app's side of reaper.py.

Used by server.py for the servers and by cluster.py for what prepares their data.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, cast

REAPER = Path(__file__).with_name("reaper.py")
# All that a server sees of our environment: API keys and database passwords are none of its
# business. The library paths are for interpreters and servers that were installed in odd places.
INHERITED = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR")
# On top of the server's own time to stop: the reaper needs a moment, on a busy machine two.
REAPER_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a process runs as when we are root.

    Either another user, or root's own files seen as `uid` in a user namespace.
    """

    uid: int
    gid: int
    namespace: bool = False


@dataclass(frozen=True, slots=True)
class Command:
    """What to run, and how to end it.

    `stop_signal` asks for an orderly end, SIGKILL follows after `stop_seconds`;
    `orphan_signal` is sent by the kernel (Linux) when the reaper itself is killed.
    """

    argv: tuple[str, ...]
    cwd: Path
    stop_signal: int = signal.SIGTERM
    orphan_signal: int = signal.SIGKILL
    stop_seconds: float = 5.0
    input: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)  # besides what all of them get
    run_as: Identity | None = None


class TiedProcess:
    """A running command. It never starts another one."""

    def __init__(
        self,
        reaper: subprocess.Popen[bytes],
        *,
        leash: IO[bytes],
        pid: int,
        stop_seconds: float,
    ) -> None:
        self._reaper = reaper
        self._leash = leash
        self._stop_seconds = stop_seconds
        self.pid = pid

    @property
    def running(self) -> bool:
        return self._reaper.poll() is None

    def wait(self, *, timeout: float) -> int:
        """Return the exit code; after `timeout` seconds, stop it first."""
        try:
            return self._reaper.wait(timeout)
        except subprocess.TimeoutExpired:
            return self.stop()

    def kill(self) -> int:
        """SIGKILL the process and its children; otherwise as `stop`."""
        # Through the reaper, which alone knows that the pid is still this process.
        with contextlib.suppress(BrokenPipeError):
            self._leash.write(b"k")
        return self.stop()

    def stop(self) -> int:
        """End the process in good order; return its exit code.

        A negative code is the reaper's: it was killed, and the process may live a moment longer.
        """
        self._leash.close()
        try:
            return self._reaper.wait(self._stop_seconds + REAPER_SECONDS)
        except subprocess.TimeoutExpired:
            # A reaper that is stopped or starved; the kernel then ends the server.
            self._reaper.kill()
            return self._reaper.wait()


def start_tied(command: Command, *, log: Path, lock: int) -> TiedProcess:
    """Start `command`; its output is appended to `log`, and it shares the lock `lock` (an fd)."""
    with log.open("ab") as output:
        reaper = subprocess.Popen(  # noqa: S603  our own interpreter and file, no shell
            [sys.executable, "-I", "-S", "-X", "utf8", str(REAPER), json.dumps(_spec(command))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            bufsize=0,
            cwd="/",
            env=_environment(),
            pass_fds=(lock,),
            # Out of the terminal's group: Ctrl-C is the app's to handle, and it stops us in order.
            start_new_session=True,
        )
    with cast("IO[bytes]", reaper.stdout) as answer:
        pid = answer.readline()
    # No pid: the reaper failed before it could start anything, and ends; its log says why.
    return TiedProcess(
        reaper,
        leash=cast("IO[bytes]", reaper.stdin),
        pid=int(pid or 0),
        stop_seconds=command.stop_seconds,
    )


def run_tied(command: Command, *, log: Path, lock: int, timeout: float = 120.0) -> int:
    """Run `command` to its end and return its exit code."""
    process = start_tied(command, log=log, lock=lock)
    try:
        return process.wait(timeout=timeout)
    finally:
        process.stop()


def _spec(command: Command) -> dict[str, object]:
    spec = asdict(command)
    spec["cwd"] = str(command.cwd)
    return spec


def _environment() -> dict[str, str]:
    # Messages in English, because we look for one of them; times in UTC, as everywhere.
    fixed = {"LC_ALL": "C", "TZ": "UTC"}
    return {name: os.environ[name] for name in INHERITED if name in os.environ} | fixed
