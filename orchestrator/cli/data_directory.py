"""The directory of one `aurora dev`: its lock, its API key, and the file that others read."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.embedded.errors import DataDirectoryBusy, DataDirectoryUnusable
from orchestrator.embedded.state import write_private

# Other commands look at the lock for a moment; an `aurora dev` holds it for long.
TRIES, PAUSE = 10, 0.02  # seconds


@dataclass(frozen=True, slots=True)
class DataDirectory:
    """Paths and files. Starts nothing; the servers keep theirs in directories below."""

    path: Path

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the directory for this process. Raises DataDirectoryBusy, DataDirectoryUnusable."""
        # Root's Postgres runs as another user, who must be able to pass through to its data.
        mode = 0o711 if os.geteuid() == 0 else 0o700
        try:
            self.path.mkdir(mode=mode, parents=True, exist_ok=True)
            lock = os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise DataDirectoryUnusable(self.path, str(error)) from error
        try:
            if not _acquire(lock):
                holder = os.pread(lock, 200, 0).decode(errors="replace") or "another process"
                raise DataDirectoryBusy(self.path, holder=holder)
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"aurora dev (process {os.getpid()})".encode(), 0)
            self.forget_urls()  # of one that was killed
            yield
        finally:
            os.close(lock)

    def publish_urls(self, urls: Mapping[str, str]) -> None:
        """Write them as KEY=VALUE lines, for this owner alone to read."""
        write_private(self.env, "".join(f"{name}={value}\n" for name, value in urls.items()))

    def forget_urls(self) -> None:
        """Remove what `publish_urls` wrote."""
        self.env.unlink(missing_ok=True)

    def of_running(self) -> dict[str, str] | None:
        """What the `aurora dev` that holds the directory wrote; None when none runs."""
        try:
            lock = os.open(self._lock, os.O_RDONLY)
        except OSError:
            return None
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            with contextlib.suppress(FileNotFoundError):
                lines = self.env.read_text().splitlines()
                return dict(line.split("=", 1) for line in lines if "=" in line)
            return None
        else:
            return None
        finally:
            os.close(lock)

    @property
    def key(self) -> str | None:
        """The API key of an earlier start."""
        try:
            return (self.path / "key").read_text().strip()
        except FileNotFoundError:
            return None

    def keep_key(self, key: str) -> None:
        """Keep the API key for the next start."""
        write_private(self.path / "key", key + "\n")

    @property
    def env(self) -> Path:
        """The file with the URLs and the key, there while `aurora dev` runs."""
        return self.path / "env"

    @property
    def _lock(self) -> Path:
        return self.path / "lock"


def _acquire(lock: int) -> bool:
    for _ in range(TRIES):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(PAUSE)
    return False
