"""The embedded servers of `aurora dev` and `aurora demo`, started and stopped side by side."""

import contextlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from orchestrator.embedded.postgres import EmbeddedPostgres
from orchestrator.embedded.server import EmbeddedServer
from orchestrator.embedded.valkey import EmbeddedValkey

REDIS, DATABASE = "redis_url", "database_url"  # the settings that name them


@contextlib.contextmanager
def embedded(
    directory: Path, *, wanted: frozenset[str] = frozenset({REDIS, DATABASE})
) -> "Iterator[Starting]":
    """Begin to start the wanted ones; they are stopped at the end, however it comes.

    Raises what `EmbeddedServer.start` raises, from `Starting.urls`.
    """
    made: dict[str, EmbeddedServer] = {}
    if REDIS in wanted:
        made[REDIS] = EmbeddedValkey(directory / "valkey")
    if DATABASE in wanted:
        made[DATABASE] = EmbeddedPostgres(directory / "postgres")
    with ThreadPoolExecutor(max_workers=2, thread_name_prefix="server") as threads:
        starting = Starting(made, threads)
        try:
            yield starting
        finally:
            starting.stop()


class Starting:
    """Servers on their way up."""

    def __init__(self, servers: Mapping[str, EmbeddedServer], threads: ThreadPoolExecutor) -> None:
        """Start each in a thread of its own."""
        self._servers = servers
        self._threads = threads
        self._started = {name: threads.submit(each.start) for name, each in servers.items()}

    def urls(self) -> dict[str, str]:
        """Wait until all are ready: setting -> URL."""
        return {name: each.result() for name, each in self._started.items()}

    def stop(self) -> None:
        """Stop what runs, also what is still coming up."""
        for each in self._started.values():
            each.exception()  # waits
        stopping = [self._threads.submit(each.stop) for each in self._servers.values()]
        for stopped in stopping:
            stopped.result()
