"""The data directory of an embedded PostgreSQL: made in one step, or checked before use.

Used by postgres.py, with the state directory's lock held.
"""

import contextlib
import os
import pwd
import shutil
import sys
from pathlib import Path

from orchestrator.embedded.binaries import postgres_major
from orchestrator.embedded.errors import (
    DataDirectoryBusy,
    DataDirectoryUnusable,
    EmbeddedServerFailed,
)
from orchestrator.embedded.state import StateDirectory
from orchestrator.embedded.tied import Command, Identity, run_tied

USER = "aurora"
DATABASE = "aurora"


class Cluster:
    """One data directory and the binaries for it. Does not run the server."""

    def __init__(self, state: StateDirectory, bin_dir: Path, *, lock: int) -> None:
        self._state = state
        self._lock = lock
        self.bin_dir = bin_dir

    def create(self) -> None:
        """Run initdb and create the database; the directory is there whole or not at all."""
        new = self._state.path / "data.new"
        shutil.rmtree(new, ignore_errors=True)  # of an initdb that was killed
        run_as = self._new_owner()
        self._state.password()
        new.mkdir(mode=0o700)
        if run_as is not None:
            # In a namespace root's own files count as theirs. The password too, because initdb
            # reads it; it may be there already, from an attempt that was cut short.
            uid, gid = (0, 0) if run_as.namespace else (run_as.uid, run_as.gid)
            for path in (new, self._state.path / "password"):
                os.chown(path, uid, gid)
        initdb, postgres = str(self.bin_dir / "initdb"), str(self.bin_dir / "postgres")
        # One sync at the end instead of one after each step.
        self._run(
            (initdb, "-D", str(new), "-U", USER, f"--pwfile={self._state.path / 'password'}",
             "--auth=scram-sha-256", "--locale=C", "--encoding=UTF8", "--no-sync",
             "--no-instructions"),
            run_as,
        )  # fmt: skip
        self._run(
            (postgres, "--single", "-F", "-D", str(new), "postgres"),
            run_as,
            text=f"CREATE DATABASE {DATABASE}\n",
        )
        self._run((initdb, "--sync-only", "-D", str(new)), run_as)
        new.rename(self._state.data)

    def check(self) -> None:
        """Refuse a directory that these binaries cannot serve, with the reason."""
        data = self._state.data
        try:
            found = (data / "PG_VERSION").read_text().strip()
        except FileNotFoundError:
            raise DataDirectoryUnusable(
                data, "it has no PG_VERSION, so it is no PostgreSQL data directory; remove it"
            ) from None
        except PermissionError as error:
            owner = data.stat().st_uid
            raise DataDirectoryUnusable(
                data, f"it belongs to uid {owner}, we run as uid {os.geteuid()}"
            ) from error
        major = postgres_major(self.bin_dir)
        if found != major:
            raise DataDirectoryUnusable(
                data,
                f"it was made by PostgreSQL {found}, but {self.bin_dir} is PostgreSQL {major};"
                f" use PostgreSQL {found} binaries, or move the directory away and begin anew",
            )
        self._refuse_running_postmaster()

    def owner(self) -> Identity | None:
        """Whom the server must run as: the data's owner if we are root, otherwise nobody else."""
        if os.geteuid() != 0:
            return None
        data = self._state.data.stat()
        # Root's own files were made in a user namespace, and are served in one.
        return Identity(data.st_uid, data.st_gid) if data.st_uid else _namespace()

    def _new_owner(self) -> Identity | None:
        """Find a way not to be root that gets at both the binaries and the directory."""
        if os.geteuid() != 0:
            return None
        nobody = pwd.getpwnam("nobody")
        # In this order: containers usually forbid user namespaces, and there everything is
        # readable; where things are private (below /root), namespaces usually work.
        for identity in (Identity(nobody.pw_uid, nobody.pw_gid), _namespace()):
            version = Command((str(self.bin_dir / "postgres"), "--version"), self._state.path,
                              run_as=identity)  # fmt: skip
            if run_tied(version, log=self._state.log, lock=self._lock) == 0:
                return identity
        raise self._failure(
            f"refuses to run as root, user 'nobody' cannot reach {self.bin_dir} and"
            f" {self._state.path}, and user namespaces are not allowed; run as an ordinary user"
        )

    def _run(
        self, argv: tuple[str, ...], run_as: Identity | None, *, text: str | None = None
    ) -> None:
        command = Command(argv, self._state.path, input=text, run_as=run_as)
        code = run_tied(command, log=self._state.log, lock=self._lock)
        if code != 0:
            raise self._failure(f"could not make a data directory: {argv[0]} ended with {code}")

    def _failure(self, why: str) -> EmbeddedServerFailed:
        return EmbeddedServerFailed(
            "PostgreSQL", why, log=self._state.log, log_tail=self._state.log_tail()
        )

    def _refuse_running_postmaster(self) -> None:
        """Look whether postmaster.pid speaks of a server, or of a number since reused.

        PostgreSQL refuses to start when any process of ours has that pid, which is what a
        container finds after each crash: pids begin at 1 again. Our lock already excludes
        servers of ours; the working directory tells those that somebody started by hand.
        """
        if sys.platform != "linux":
            return
        file = self._state.data / "postmaster.pid"
        with contextlib.suppress(FileNotFoundError, PermissionError, ValueError, IndexError):
            pid = abs(int(file.read_text().splitlines()[0]))
            works_in = Path(f"/proc/{pid}/cwd").readlink()
            if works_in == self._state.data.resolve():
                raise DataDirectoryBusy(self._state.data, holder=f"PostgreSQL (process {pid})")
            file.unlink()


def _namespace() -> Identity:
    nobody = pwd.getpwnam("nobody")
    return Identity(nobody.pw_uid, nobody.pw_gid, namespace=True)
