"""Small file systems of the run's own, in a mount namespace of its own.

They are gone with the last of our processes, whatever ends these: nothing is left to unmount.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

INSIDE = "FAULTS_OWN_MOUNTS"  # set where this program runs in its own namespace
UNSHARE = ("unshare", "--mount")


def possible() -> bool:
    """Whether this user may have mounts of their own here."""
    try:
        asked = subprocess.run([*UNSHARE, "true"], capture_output=True, check=False)
    except FileNotFoundError:
        return False
    return asked.returncode == 0


def begin_again_inside() -> NoReturn:
    """Run this program anew, in a namespace of its own."""
    os.environ[INSIDE] = "1"
    os.execvp(UNSHARE[0], [*UNSHARE, sys.executable, "-m", "tests.faults", *sys.argv[1:]])  # noqa: S606


def mount(path: Path, *, megabytes: int) -> None:
    """A file system of that size at `path`, which is made."""
    path.mkdir()
    options = f"size={megabytes}m,mode=0755"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], check=True)


def unmount(path: Path) -> None:
    """Undo it. Lazily: a server that is slow to go does not hold it up."""
    if path.is_mount():
        subprocess.run(["umount", "--lazy", str(path)], check=True)
