"""The servers of a run, and how each of its processes reaches them."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from orchestrator.embedded.postgres import EmbeddedPostgres
from orchestrator.embedded.valkey import EmbeddedValkey

ROOT = Path(__file__).parent.parent.parent


class CannotRun(Exception):
    """This machine lacks something that a scenario needs; its text says what."""


class Urls(NamedTuple):
    """Where somebody finds Redis and Postgres."""

    redis: str
    database: str


class Servers:
    """One Valkey and one Postgres, reached directly. Scenarios name others of this kind."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.valkey = EmbeddedValkey(home / "valkey")
        self.postgres = EmbeddedPostgres(home / "postgres")

    async def start(self) -> None:
        """Start everything that the processes need."""
        self.direct = Urls(
            redis=await asyncio.to_thread(self.valkey.start),
            database=await asyncio.to_thread(self.postgres.start),
        )

    async def stop(self) -> None:
        """Stop it, also what was started half way."""
        await asyncio.to_thread(self.valkey.stop)
        await asyncio.to_thread(self.postgres.stop)

    async def urls(self, who: str) -> Urls:
        """What this process is told: "worker-0", "recorder-0", or "client", the load's own."""
        return self.direct

    def environment(self, who: str) -> Mapping[str, str]:
        """What else it is told."""
        return {}
