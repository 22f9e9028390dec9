"""A PostgreSQL server for development and tests, as safe on disk as a real one."""

import signal
from pathlib import Path
from typing import ClassVar

from orchestrator.embedded.binaries import postgres_bin
from orchestrator.embedded.cluster import DATABASE, USER, Cluster
from orchestrator.embedded.ports import LOOPBACK
from orchestrator.embedded.server import EmbeddedServer
from orchestrator.embedded.tied import Command

MAX_CONNECTIONS = 200
# In postmaster.pid, counted from 0: the pid, and the state, which is "ready" once clients may come.
PID_LINE, STATUS_LINE = 0, 7


class EmbeddedPostgres(EmbeddedServer):
    """PostgreSQL on 127.0.0.1 with a password (scram-sha-256) and an empty database `aurora`.

    fsync and synchronous_commit are on: what was committed survives every crash. The data
    directory belongs to one major version; another one's binaries are refused.
    """

    title: ClassVar[str] = "PostgreSQL"

    def __init__(
        self,
        state_dir: Path,
        *,
        port: int = 0,
        shared_buffers: str = "128MB",
        bin_dir: Path | None = None,
    ) -> None:
        super().__init__(state_dir, port=port)
        self._shared_buffers = shared_buffers
        self._bin_dir = bin_dir

    def _prepare(self, lock: int) -> None:
        cluster = Cluster(self._state, postgres_bin(self._bin_dir), lock=lock)
        if self._state.data.exists():
            cluster.check()
        else:
            cluster.create()
        self._postgres = cluster.bin_dir / "postgres"
        self._run_as = cluster.owner()
        self._password = self._state.password(create=False)
        # A crashed predecessor's file may say "ready", and in a container even with our pid.
        self._stale_status = self._status()

    def _command(self, port: int) -> Command:
        settings = {
            "listen_addresses": LOOPBACK,
            "port": str(port),
            "unix_socket_directories": "",
            "fsync": "on",
            "synchronous_commit": "on",
            "max_connections": str(MAX_CONNECTIONS),
            "shared_buffers": self._shared_buffers,
            "timezone": "UTC",
            "log_timezone": "UTC",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return Command(
            argv=(str(self._postgres), "-D", str(self._state.data), *options),
            cwd=self._state.path,
            stop_signal=signal.SIGINT,  # fast shutdown: clients are disconnected
            # Immediate shutdown: bounded by PostgreSQL itself (5 s), repaired at the next start.
            orphan_signal=signal.SIGQUIT,
            stop_seconds=10.0,
            run_as=self._run_as,
        )

    def _is_ready(self, pid: int, port: int) -> bool:  # noqa: ARG002  the pid file says it all
        status = self._status()
        return (
            status != self._stale_status
            and len(status) > STATUS_LINE
            and status[PID_LINE].strip() == str(pid)
            and status[STATUS_LINE].strip() == "ready"
        )

    def _status(self) -> list[str]:
        try:
            return (self._state.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _url(self, port: int) -> str:
        return f"postgresql://{USER}:{self._password}@{LOOPBACK}:{port}/{DATABASE}"
