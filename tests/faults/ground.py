"""Servers of the run's own, and the processes that are broken; what ends is started again."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from sqlalchemy import text

from orchestrator.db import schema
from orchestrator.db.session import Database
from orchestrator.embedded.ports import free_port, is_free
from orchestrator.embedded.postgres import EmbeddedPostgres
from orchestrator.embedded.valkey import EmbeddedValkey
from orchestrator.errors import Unavailable
from orchestrator.parts import Parts
from orchestrator.registry import load_agents
from orchestrator.settings import Settings
from orchestrator.streams.names import ORCHESTRATOR
from tests.faults.agents import NOTES
from tests.faults.points import DEATHS, ORDERS, Order
from tests.faults.servers import ROOT, Servers
from tests.support import wait_until

AGENTS = ("tests.faults.agents", "tests.faults.poisons")
LEASE = 2.0  # seconds
GRACE = 1.0  # seconds before the reconciler looks at a row


@dataclass
class Slot:
    """A place for a process of one role, whichever process is in it now."""

    role: str
    log: Path
    environment: dict[str, str]
    alone: bool  # each of its processes as on a machine of its own
    deaths: int = 0
    started: int = 0
    ends: dict[int, int] = field(default_factory=dict)  # how each process ended, by its pid
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> None:
        """Put a new process there."""
        machine = f"{self.log.stem}-{self.started}" if self.alone else "machine"
        self.started += 1
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.role", self.role],
                cwd=ROOT, stdout=log, stderr=log,
                env=self.environment | {"AURORA_LOCKS": str(self.log.with_name(machine))},
                start_new_session=True,  # a poison kills its process group, which is not ours
            )  # fmt: skip

    def kill(self) -> int:
        """SIGKILL it, and start the next one at once; the pid of the killed."""
        pid = self.process.pid
        self.process.kill()
        self.ends[pid] = self.process.wait()
        self.start()
        return pid

    def revive(self) -> None:
        """Start another where it has ended by itself."""
        code = self.process.poll()
        if code is not None:
            self.deaths += 1
            self.ends[self.process.pid] = code
            self.start()

    def end(self) -> None:
        """End it for good."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait()


@dataclass
class Ground:
    """Where a scenario runs."""

    home: Path
    servers: Servers
    parts: Parts
    record: Database  # what the checker reads: past whatever lies between the servers and others
    workers: list[Slot] = field(default_factory=list)
    recorders: list[Slot] = field(default_factory=list)
    apis: list[Slot] = field(default_factory=list)
    schedulers: list[Slot] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)
    others: list[Slot] = field(default_factory=list)
    environment: Mapping[str, str] = field(default_factory=dict)
    apart: bool = False  # each process as on a machine of its own
    kills: list[tuple[int, float]] = field(default_factory=list)  # pid and time.time()
    forgot: list[float] = field(default_factory=list)  # time.time() of what Redis lost

    @property
    def valkey(self) -> EmbeddedValkey:
        return self.servers.valkey

    @property
    def postgres(self) -> EmbeddedPostgres:
        return self.servers.postgres

    @property
    def notes(self) -> Path:
        return self.home / "starts.jsonl"

    @property
    def deaths(self) -> Path:
        return self.home / "deaths.jsonl"

    def order_of(self, role: str) -> Path:
        """Where the processes of a role are told to die: the first that passes obeys."""
        return self.home / f"{role}.order"

    @property
    def slots(self) -> list[Slot]:
        """Every place there is."""
        return [*self.workers, *self.recorders, *self.apis, *self.schedulers, *self.others]

    async def start(
        self, *, workers: int, recorders: int = 1, apis: int = 0, schedulers: int = 0
    ) -> None:
        """Start everything, and wait until it takes part."""
        for number in range(workers):
            self.workers.append(await self._slot("worker", number))
        for number in range(recorders):
            self.recorders.append(await self._slot("recorder", number))
        for number in range(apis):
            self.apis.append(await self._slot("api", number))
        for number in range(schedulers):
            self.schedulers.append(await self._slot("scheduler", number))
        await wait_until(lambda: self._consumers(workers), what="the workers read", timeout=60)
        for slot in self.apis:
            listens = partial(_listens, int(slot.environment["AURORA_PORT"]))
            await wait_until(listens, what="the API listens", timeout=60)

    async def add(self, role: str, **environment: str) -> Slot:
        """Start another role beside the workers and recorders."""
        found = await self._slot(role, len(self.others), **environment)
        self.others.append(found)
        return found

    async def _slot(self, role: str, number: int, **environment: str) -> Slot:
        who = f"{role}-{number}"
        urls = await self.servers.urls(who)
        ours = {k: v for k, v in os.environ.items() if not k.startswith("AURORA_")}
        found = Slot(role, self.home / f"{who}.log", ours | {
            "AURORA_REDIS_URL": urls.redis,
            "AURORA_DATABASE_URL": urls.database,
            "AURORA_LEASE": str(LEASE),
            "AURORA_RECONCILE_GRACE": str(GRACE),
            "AURORA_AGENTS": ",".join(AGENTS),
            "PYTHONPATH": str(ROOT),
            "AURORA_PORT": str(free_port()),
            NOTES: str(self.notes),
            ORDERS: str(self.order_of(role)),
            DEATHS: str(self.deaths),
            **self.servers.environment(who),
            **self.environment,
            **environment,
        }, alone=self.apart)  # fmt: skip
        found.start()
        return found

    async def _consumers(self, expected: int) -> bool:
        key = self.parts.streams.keys.tasks
        found = await self.parts.streams.commands.xinfo_consumers(key, ORCHESTRATOR)
        return len(found) >= expected

    def kill(self, slot: Slot) -> None:
        """SIGKILL and start again, written down for the checker."""
        killed = time.time()
        self.kills.append((slot.kill(), killed))

    async def supervise(self) -> None:
        """As systemd would: what has ended is started again."""
        while True:
            for slot in self.slots:
                slot.revive()
            await asyncio.sleep(0.05)

    async def rows(self, sql: str, **params: Any) -> Sequence[Any]:
        """What Postgres says, asked again while it is away."""
        deadline = time.monotonic() + 60
        while True:
            try:
                async with self.record.transaction() as connection:
                    return (await connection.execute(text(sql), params)).all()
            except Unavailable:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.05)

    def logs(self) -> str:
        """What the processes said last, for a failure's reader."""
        return "\n".join(
            f"--- {path.name}\n{path.read_text(errors='replace')[-2000:]}"
            for path in sorted(self.home.glob("*.log"))
        )


def _listens(port: int) -> bool:
    return not is_free(port)


@contextlib.asynccontextmanager
async def ground(
    *,
    environment: Mapping[str, str],
    apart: bool = False,
    servers: type[Servers] = Servers,
    **processes: int,
) -> AsyncIterator[Ground]:
    """Servers and processes (`Ground.start`), all gone at the end."""
    with tempfile.TemporaryDirectory(prefix="aurora-faults-") as directory:
        home = Path(directory)
        standing = servers(home)
        try:
            await standing.start()
            urls = await standing.urls("client")
            settings = Settings(
                redis_url=urls.redis,
                database_url=urls.database,
                agents=AGENTS,
                lease=timedelta(seconds=LEASE),
            )
            parts = Parts(settings, role="faults", registry=load_agents(AGENTS))
            direct = settings.model_copy(
                update={"database_url": SecretStr(standing.direct.database)}
            )
            record = Database(direct.async_database_url, pool_size=5)
            found = Ground(home, standing, parts, record, environment=environment, apart=apart)
            supervisor: asyncio.Task[None] | None = None
            try:
                await schema.upgrade(record)
                await parts.streams.ensure_all_groups()
                await found.start(**processes)
                supervisor = asyncio.create_task(found.supervise())
                yield found
            finally:
                if supervisor is not None:
                    supervisor.cancel()
                for slot in found.slots:
                    slot.end()
                await parts.close()
                await record.close()
        finally:
            await standing.stop()
