"""A Valkey server for development and tests, kept on disk like a real one."""

import signal
import socket
from pathlib import Path
from typing import ClassVar

from orchestrator.embedded.binaries import preloaded_allocator, valkey_server
from orchestrator.embedded.ports import LOOPBACK
from orchestrator.embedded.server import EmbeddedServer
from orchestrator.embedded.state import write_private
from orchestrator.embedded.tied import Command

PING_SECONDS = 0.25


class EmbeddedValkey(EmbeddedServer):
    """Valkey on 127.0.0.1 with a password, an append-only file and no eviction.

    `redis-cli -u URL` works. A crash of the machine loses at most about a second of writes
    (appendfsync everysec), a crash of the process none that was answered.
    """

    title: ClassVar[str] = "Valkey"

    def __init__(
        self,
        state_dir: Path,
        *,
        port: int = 0,
        maxmemory: str = "1gb",
        binary: Path | None = None,
    ) -> None:
        super().__init__(state_dir, port=port)
        self._maxmemory = maxmemory
        self._binary = binary

    def _prepare(self, lock: int) -> None:  # noqa: ARG002  Valkey needs no tool run beforehand
        self._server = valkey_server(self._binary)
        self._allocator = preloaded_allocator(self._server)
        self._password = self._state.password()
        self._state.data.mkdir(mode=0o700, exist_ok=True)

    def _command(self, port: int) -> Command:
        # A file and not arguments: `ps` shows those, and the password is among them. The data
        # directory is the working directory, so that no path has to be quoted in the file.
        config = self._state.path / "valkey.conf"
        write_private(
            config,
            f"bind {LOOPBACK}\n"
            f"port {port}\n"
            f"requirepass {self._password}\n"
            # From the first moment: turned on later, it can make a shutdown hang.
            "appendonly yes\n"
            "appendfsync everysec\n"
            'save ""\n'
            f"maxmemory {self._maxmemory}\n"
            "maxmemory-policy noeviction\n"
            "daemonize no\n"
            'logfile ""\n',
        )
        return Command(
            argv=(str(self._server), str(config)),
            cwd=self._state.data,
            # One of another architecture is passed over by the loader.
            environment={} if self._allocator is None else {"LD_PRELOAD": str(self._allocator)},
            stop_signal=signal.SIGTERM,
            orphan_signal=signal.SIGTERM,
        )

    def _is_ready(self, pid: int, port: int) -> bool:  # noqa: ARG002  the password identifies it
        try:
            with socket.create_connection((LOOPBACK, port), timeout=PING_SECONDS) as connection:
                connection.sendall(f"AUTH {self._password}\r\nPING\r\n".encode())
                with connection.makefile("rb") as replies:
                    # The second is -LOADING while the append-only file is read.
                    return [replies.readline(), replies.readline()] == [b"+OK\r\n", b"+PONG\r\n"]
        except OSError:
            return False

    def _url(self, port: int) -> str:
        # With the user named: redis-cli -u takes an empty one for a user of that name.
        return f"redis://default:{self._password}@{LOOPBACK}:{port}/0"
