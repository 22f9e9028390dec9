"""Servers of each test's own (embedded), so that it may break them, and real processes."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from orchestrator.db import schema
from orchestrator.embedded.postgres import EmbeddedPostgres
from orchestrator.embedded.valkey import EmbeddedValkey
from orchestrator.errors import Unavailable
from orchestrator.parts import Parts
from orchestrator.registry import AgentRegistry, load_agents
from orchestrator.settings import Settings
from tests.support import wait_until

ROOT = Path(__file__).parent.parent.parent
LEASE = 2.0  # seconds
AGENTS = "tests.acceptance.working_agents"


@dataclass
class System:
    """Two servers, a client, and as many processes as a test starts."""

    valkey: EmbeddedValkey
    postgres: EmbeddedPostgres
    settings: Settings
    home: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    parts: Parts = field(init=False)

    def start(self, *roles: str, **env: str) -> subprocess.Popen[bytes]:
        """A process that runs these roles."""
        name = f"{len(self.processes)}-{'-'.join(roles)}.log"
        # As on a machine of its own: nobody sees it end, and its lease is waited out.
        machine = {"AURORA_LOCKS": str(self.home / f"machine-{len(self.processes)}")}
        with (self.home / name).open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.acceptance.role", *roles],
                cwd=ROOT,
                env={**os.environ, **self.environment(), **machine, **env},
                stdout=log,
                stderr=log,
            )
        self.processes.append(process)
        return process

    def environment(self) -> dict[str, str]:
        """The settings as a process gets them."""
        return {
            "AURORA_REDIS_URL": self.settings.redis_url.get_secret_value(),
            "AURORA_DATABASE_URL": self.settings.database_url.get_secret_value(),
            "AURORA_LEASE": str(self.settings.lease.total_seconds()),
            "AURORA_AGENTS": ",".join(self.settings.agents),
            "AURORA_RECONCILE_GRACE": "1",
        }

    async def rows(self, sql: str, **params: Any) -> list[dict[str, Any]]:
        """What Postgres says; asked again where the connection is one from before its death."""
        try:
            return await self._rows(sql, params)
        except Unavailable:
            return await self._rows(sql, params)

    async def _rows(self, sql: str, params: dict[str, Any]) -> list[dict[str, Any]]:
        async with self.parts.database.transaction() as connection:
            return [dict(row._mapping) for row in await connection.execute(text(sql), params)]

    async def count(self, sql: str, **params: Any) -> int:
        """One number from Postgres."""
        (row,) = await self.rows(sql, **params)
        return int(next(iter(row.values())))

    async def all_ended(self, expected: int, *, timeout: float = 60.0) -> None:
        """Wait until that many tasks have ended, and none is open."""

        async def done() -> bool:
            ended = await self.count("SELECT count(*) FROM results")
            left = await self.count(
                "SELECT count(*) FROM tasks WHERE state IN"
                " ('scheduled','queued','running','waiting','retrying')"
            )
            return ended >= expected and left == 0

        await wait_until(done, what=f"{expected} tasks ended", timeout=timeout)

    def ledger(self) -> Path:
        """The file in which agents note their starts."""
        return self.home / "ledger.jsonl"

    def starts(self) -> list[dict[str, Any]]:
        """Each start that an agent noted."""
        if not self.ledger().exists():
            return []
        return [json.loads(line) for line in self.ledger().read_text().splitlines()]

    def logs(self) -> str:
        """What the processes said, for a failure's reader."""
        return "\n".join(
            f"--- {path.name}\n{path.read_text(errors='replace')[-3000:]}"
            for path in sorted(self.home.glob("*.log"))
        )

    def stop_all(self) -> None:
        """End every process that this test started."""
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    """A Valkey of this test's own."""
    with EmbeddedValkey(tmp_path / "valkey") as found:
        yield found


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    """A Postgres of this test's own."""
    with EmbeddedPostgres(tmp_path / "postgres") as found:
        yield found


@pytest.fixture
async def system(
    valkey: EmbeddedValkey, postgres: EmbeddedPostgres, tmp_path: Path
) -> AsyncIterator[System]:
    """The servers, migrated, and a client; processes are the test's to start."""
    settings = Settings(
        redis_url=valkey.start(),
        database_url=postgres.start(),
        agents=(AGENTS,),
        lease=timedelta(seconds=LEASE),
        reconcile_grace=timedelta(seconds=1),
    )
    found = System(valkey, postgres, settings, tmp_path)
    found.parts = Parts(settings, role="test", registry=registry())
    await schema.upgrade(found.parts.database)
    await found.parts.streams.ensure_all_groups()
    try:
        yield found
    finally:
        found.stop_all()
        sys.stderr.write(found.logs())  # pytest shows it when the test fails
        await found.parts.close()


def registry() -> AgentRegistry:
    """The agents of the worker processes, as this process has them."""
    return load_agents([AGENTS])
