"""Which processes of this machine have ended: while one lives, it holds a lock on its file.

What fell silent may live on another machine, or stand still, so its lease is waited out. Of a
neighbour the kernel knows better: it lets go of a lock when the last process that holds it is gone,
and not before. A file without a lock is therefore proof of an end; one that is not there is none (a
process in another container, of another user, or on another machine). What an agent has forked
holds the lock, too: then the lease decides, as it does wherever a folder or a lock cannot be had.
"""

import fcntl
import hashlib
import logging
import mmap
import os
import secrets
import socket
import stat
import time
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

logger = logging.getLogger("aurora.neighbours")

# Seconds that the file of one that ended stays for the others to see. Then it goes, so that the
# folder does not grow; whatever it had in hand is the lease's by then. The file itself says since
# when: processes that end before they have looked for so long would never see it go.
SHOWN = 60.0
LIVES, ENDED = 0o600, 0o400  # modes of a file; of one that ended its time is when that was seen
NAME = 36  # bytes of a task's id, which stand in a file while that task's code runs

Memory = bytearray | mmap.mmap


def scope_of(redis_url: str, prefix: str) -> str:
    """What tells the processes of one Redis and prefix from others on this machine."""
    url = urlsplit(redis_url)
    where = f"{url.hostname}:{url.port or 6379}{url.path}#{prefix}"
    return hashlib.blake2s(where.encode(), digest_size=6).hexdigest()


def unique_name(role: str) -> str:
    """A process' and a consumer's name: two of one name would own each other's entries."""
    return f"{role}:{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"


class Seen(NamedTuple):
    """One look at the folder."""

    ended: tuple[str, ...] = ()  # names
    alike: int = 1  # those of our role that live, ourselves among them


class Neighbours:
    """One process' place among them; nothing here is ever waited for, and nothing raises."""

    def __init__(self, folder: Path, *, scope: str, name: str) -> None:
        """Store. `folder`: on this machine alone, never on a network's file system."""
        self._folder = folder
        self._scope = scope
        self._file = f"{scope}.{name}"
        self._lock: int | None = None
        # What the others may read here, after our end, too; our own alone where they see nothing.
        self.memory: Memory = bytearray(NAME)

    def enter(self) -> None:
        """Hold the lock from now on: the others hear of our end at once."""
        hidden = self._folder / f".{self._file}"
        try:
            own(self._folder)
            number = os.open(hidden, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, LIVES)
            self._lock = number
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.fchmod(number, LIVES)  # somebody may have looked before it was locked
            os.write(number, bytes(NAME))  # a folder that is full says so here, and never later
            self.memory = mmap.mmap(number, NAME)
            # Shown when it is locked, never before: nobody may take us for ended meanwhile.
            hidden.rename(self._folder / self._file)
        except OSError as error:
            self.leave()
            logger.info(
                "should this process be killed, its tasks wait for their lease: %s", error,
                extra={"event": "neighbours.unseen"},
            )  # fmt: skip

    def look(self) -> Seen:
        """Who is there, and who has ended of late, sure to be dead."""
        if self._lock is None:
            return Seen()
        try:
            files = [path.name for path in self._folder.iterdir()]
        except OSError:
            return Seen()
        now = time.time()
        ended = {
            file: since
            for file in files
            if file != self._file and (since := _ended_at(self._folder / file, now)) is not None
        }
        for file, since in ended.items():
            if now - since > SHOWN:
                (self._folder / file).unlink(missing_ok=True)
        ours = self._file.partition(":")[0] + ":"
        return Seen(
            ended=tuple(
                file.removeprefix(f"{self._scope}.")
                for file in ended
                if file.startswith(f"{self._scope}.")
            ),
            alike=max(1, sum(file.startswith(ours) and file not in ended for file in files)),
        )

    def named(self) -> frozenset[str]:
        """Tasks whose code the others ran when they ended, or are running now."""
        if self._lock is None:
            return frozenset()
        try:
            files = [path for path in self._folder.iterdir() if path.name != self._file]
        except OSError:
            return frozenset()
        said = [_read(path) for path in files if path.name.startswith(f"{self._scope}.")]
        return frozenset(name.decode("ascii", "replace") for name in said if name)

    def leave(self) -> None:
        """Be no neighbour any more; what is in hand has been handed back."""
        if self._lock is not None:
            (self._folder / self._file).unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None


def own(folder: Path) -> None:
    """Make it. Raises OSError where somebody else could write there: a lie would be believed."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise PermissionError(f"{folder} is not this user's alone (AURORA_LOCKS)")


def _ended_at(path: Path, now: float) -> float | None:
    """When its process was first seen to have ended, by anybody; None where it may live.

    `now`: seconds since 1970, written down where we are the first.
    """
    try:
        number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        # Shared, so that two who look at once do not take each other for its owner.
        fcntl.flock(number, fcntl.LOCK_SH | fcntl.LOCK_NB)
        found = os.fstat(number)
        if stat.S_IMODE(found.st_mode) == ENDED:
            return found.st_mtime
        os.utime(number, (now, now))
        os.fchmod(number, ENDED)
    except OSError:
        return None
    else:
        return now
    finally:
        os.close(number)


def _read(path: Path) -> bytes:
    """What stands in it; nothing where its process is between two steps."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return b""
    try:
        said = os.read(number, NAME)
    except OSError:
        return b""
    else:
        return b"" if said.startswith(b"\0") else said
    finally:
        os.close(number)
