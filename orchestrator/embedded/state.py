"""The directory that one embedded server keeps its things in: lock, password, log, data.

Used by server.py. One directory serves one server; give each its own.
"""

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.embedded.errors import DataDirectoryBusy, DataDirectoryUnusable

# Long enough for a server whose app was just killed to finish, short enough to wait for.
LOCK_SECONDS = 5.0
LOCK_POLL_SECONDS = 0.02
LOG_TAIL_LINES = 15
LOG_TAIL_BYTES = 8192


@dataclass(frozen=True, slots=True)
class StateDirectory:
    """Paths and files of one server. Starts and stops nothing."""

    path: Path
    lock_seconds: float | None = None  # how long another's lock is waited for, if not so long

    @property
    def data(self) -> Path:
        return self.path / "data"

    @property
    def log(self) -> Path:
        return self.path / "server.log"

    @contextlib.contextmanager
    def locked(self) -> Iterator[int]:
        """Hold the directory for one server; yields the lock's file descriptor.

        Whoever inherits the descriptor shares the lock: it is free when the last of them has
        ended. Raises DataDirectoryBusy when it is not free in time.
        """
        self._create()
        try:
            lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise DataDirectoryUnusable(self.path, str(error)) from error
        try:
            self._acquire(lock)
            self.note_holder(lock, f"process {os.getpid()}")
            yield lock
        finally:
            os.close(lock)

    def note_holder(self, lock: int, holder: str) -> None:
        """Leave word of who holds the lock, for the error message of whoever comes next."""
        os.ftruncate(lock, 0)
        os.pwrite(lock, holder.encode(), 0)

    def wait_until_free(self) -> bool:
        """Wait until no process uses the directory; False when one still does after a while."""
        try:
            with self.locked():
                return True
        except DataDirectoryBusy:
            return False

    def password(self, *, create: bool = True) -> str:
        """Return the server's password, the same one at every start."""
        file = self.path / "password"
        try:
            return file.read_text().strip()
        except FileNotFoundError:
            if not create:
                raise DataDirectoryUnusable(
                    self.path,
                    "its file 'password' is gone; restore it, or remove the directory"
                    " to begin with an empty database",
                ) from None
        # URL-safe, so that it stands in a URL, a config file and SQL without quoting.
        password = secrets.token_urlsafe(24)
        write_private(file, password + "\n")
        return password

    def begin_log(self) -> None:
        """Start a new log and keep the one before it, so that the pair stays small."""
        with contextlib.suppress(FileNotFoundError):
            self.log.replace(self.log.with_suffix(".log.1"))
        # Error messages quote statements, and with them data.
        self.log.touch(mode=0o600)

    def log_tail(self) -> str:
        """Return the last lines of the log, or "" when there is none."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
                lines = file.read().decode(errors="replace").splitlines()
        except FileNotFoundError:
            return ""
        return "\n".join(lines[-LOG_TAIL_LINES:])

    def _create(self) -> None:
        # Root's Postgres runs as nobody, who must be able to pass through to its data; what is
        # private inside is private by its own mode.
        mode = 0o711 if os.geteuid() == 0 else 0o700
        try:
            self.path.mkdir(mode=mode, parents=True, exist_ok=True)
        except OSError as error:
            raise DataDirectoryUnusable(self.path, str(error)) from error

    def _acquire(self, lock: int) -> None:
        patience = LOCK_SECONDS if self.lock_seconds is None else self.lock_seconds
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    holder = os.pread(lock, 200, 0).decode(errors="replace")
                    raise DataDirectoryBusy(self.path, holder=holder or "another process") from None
                time.sleep(LOCK_POLL_SECONDS)
            else:
                return


def write_private(file: Path, text: str) -> None:
    """Write a file that only its owner reads, in one step: it is there whole or not at all."""
    new = file.with_name(file.name + ".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as opened:
        opened.write(text)
        opened.flush()
        os.fsync(descriptor)
    new.replace(file)
