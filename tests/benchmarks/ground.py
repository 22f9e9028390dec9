"""The servers, emptied before each measurement, and the processes that are measured.

Own embedded servers in a temporary directory (fsync on), or those that AURORA_TEST_REDIS_URL and
AURORA_TEST_DATABASE_URL name; there it keeps to a prefix and a database of its own.
"""

import asyncio
import contextlib
import os
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import psutil

from orchestrator.db import schema
from orchestrator.embedded.ports import free_port
from orchestrator.embedded.postgres import EmbeddedPostgres
from orchestrator.embedded.valkey import EmbeddedValkey
from orchestrator.parts import Parts
from orchestrator.registry import load_agents
from orchestrator.settings import Settings
from tests.benchmarks.gate import GATE, READY
from tests.benchmarks.progress import Telling

ROOT = Path(__file__).parent.parent.parent
AGENTS = "tests.benchmarks.agents"
READY_WITHIN = 60.0  # seconds
TABLES = "tasks, results, attempts, dead_letters, audit_events"


@dataclass(frozen=True)
class Running:
    """A process under measurement; its children count as part of it."""

    name: str
    process: asyncio.subprocess.Process
    ready: Path

    @property
    def pid(self) -> int:
        return self.process.pid


@dataclass
class Ground:
    """Where everything runs. Emptied by `clean`, closed with the block that opened it."""

    redis_url: str
    database_url: str
    prefix: str
    home: Path
    telling: Telling
    server_pids: Mapping[str, int]  # empty where the servers are not ours
    parts: Parts = field(init=False)
    postgres: asyncpg.Connection = field(init=False)
    facts: dict[str, str] = field(default_factory=dict)
    _running: list[Running] = field(default_factory=list)
    _gates: int = 0

    async def open(self) -> None:
        """Connect and bring the schema to head."""
        settings = Settings(
            redis_url=self.redis_url,
            database_url=self.database_url,
            prefix=self.prefix,
            agents=(AGENTS,),
        )
        self.parts = Parts(settings, role="benchmark", registry=load_agents([AGENTS]))
        await schema.upgrade(self.parts.database)
        self.postgres = await asyncpg.connect(self.database_url)
        self.facts["streams"] = await self.parts.streams.check_server()
        self.facts["postgres"] = await self.postgres.fetchval("SHOW server_version")
        self.facts["fsync"] = await self.postgres.fetchval("SHOW fsync")
        policy = await self.parts.streams.commands.config_get("append*")
        self.facts["allocator of streams"] = await self._allocator()
        self.facts["append-only file"] = str(policy.get("appendonly", "?"))

    async def _allocator(self) -> str:
        """A preloaded one is not among what the server says of itself."""
        said = (await self.parts.streams.commands.info("memory"))["mem_allocator"]
        maps = Path(f"/proc/{self.server_pids.get('valkey')}/maps")
        preloaded = maps.exists() and "jemalloc" in maps.read_text()
        return "jemalloc, preloaded" if preloaded else str(said)

    async def clean(self) -> None:
        """Stop what runs, forget every message and row, and make the groups anew."""
        await self.forget()
        with contextlib.suppress(asyncpg.InsufficientPrivilegeError):
            await self.postgres.execute("CHECKPOINT")  # each measurement begins with an empty log
        await self.parts.streams.ensure_all_groups()

    async def forget(self) -> None:
        """Stop what runs, and leave neither keys nor rows."""
        await self.stop_all()
        commands = self.parts.streams.commands
        if self.server_pids:
            await commands.flushdb()
        else:
            async for key in commands.scan_iter(f"{self.prefix}:*", count=1000):
                await commands.unlink(key)
        await self.postgres.execute(f"TRUNCATE {TABLES}")

    def environment(self) -> dict[str, str]:
        """The settings as a process gets them; nothing of the caller's shell."""
        ours = {k: v for k, v in os.environ.items() if not k.startswith("AURORA_")}
        return ours | {
            "AURORA_REDIS_URL": self.redis_url,
            "AURORA_DATABASE_URL": self.database_url,
            "AURORA_PREFIX": self.prefix,
            "AURORA_AGENTS": AGENTS,
            "PYTHONPATH": str(ROOT),
        }

    async def start(
        self, name: str, *module: str, python: str | Path = sys.executable, **env: str
    ) -> Running:
        """A process that runs `python -m <module>`, held at the gate."""
        self._gates += 1
        ready = self.home / f"ready-{self._gates}"
        with (self.home / f"{self._gates}-{name}.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                str(python), "-m", *module,
                cwd=ROOT, stdout=log, stderr=log, start_new_session=True,
                env=self.environment() | {READY: str(ready), GATE: str(self._gate)} | env,
            )  # fmt: skip
        found = Running(name, process, ready)
        self._running.append(found)
        return found

    async def role(self, *roles: str, **env: str) -> Running:
        """A process that runs these roles."""
        return await self.start("-".join(roles), "tests.benchmarks.role", *roles, **env)

    async def all_ready(self) -> None:
        """Wait until every process that was started stands at the gate."""
        deadline = time.monotonic() + READY_WITHIN
        for each in self._running:
            while not each.ready.exists():
                if each.process.returncode is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{each.name} did not start:\n{self.logs()}")
                await asyncio.sleep(0.02)
        # Whatever their start has stirred up (page faults, log writes) settles.
        await asyncio.sleep(0.1)

    async def open_gate(self) -> float:
        """Wait until all are ready, then let them begin; the moment (time.monotonic)."""
        await self.all_ready()
        self._gate.touch()
        return time.monotonic()

    async def stop_all(self) -> None:
        """End the processes that were started."""
        for each in self._running:
            if each.process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    # A session of its own: the children of a peer's worker end with it.
                    os.killpg(each.pid, signal.SIGKILL)
            await each.process.wait()
        self._running.clear()
        self._gate.unlink(missing_ok=True)

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[Parts]:
        """The parts of a program of its own, closed with the block."""
        parts = Parts(self.parts.settings, role="client", registry=self.parts.registry)
        try:
            yield parts
        finally:
            await parts.close()

    def free_port(self) -> int:
        """A port that nobody listens on."""
        return free_port()

    def check_alive(self) -> None:
        """Raise when a process under measurement has ended."""
        for each in self._running:
            if each.process.returncode is not None:
                raise RuntimeError(f"{each.name} has ended:\n{self.logs()}")

    def logs(self) -> str:
        """What the processes of this measurement said last."""
        paths = sorted(self.home.glob("*.log"), key=lambda path: path.stat().st_mtime)[-4:]
        return "\n".join(f"--- {p.name}\n{p.read_text(errors='replace')[-1500:]}" for p in paths)

    def cpu(self) -> dict[str, float]:
        """Seconds of CPU so far by process name, the servers' too where they are ours."""
        found: dict[str, float] = {}
        pids = [(each.name, each.pid) for each in self._running] + list(self.server_pids.items())
        for name, pid in pids:
            found[name] = found.get(name, 0.0) + cpu_seconds(pid)
        return found

    @property
    def _gate(self) -> Path:
        return self.home / "gate"


def cpu_seconds(pid: int) -> float:
    """User and system seconds of a process and its living children."""
    total = 0.0
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for each in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                times = each.cpu_times()
                total += times.user + times.system
    return total


@contextlib.asynccontextmanager
async def ground(telling: Telling) -> AsyncIterator[Ground]:
    """Servers, a prefix and a database, all gone at the end."""
    with tempfile.TemporaryDirectory(prefix="aurora-bench-") as directory:
        home = Path(directory)
        async with contextlib.AsyncExitStack() as stack:
            redis_url, database_url, pids = await _servers(home, stack)
            found = Ground(
                redis_url=redis_url, database_url=database_url, home=home, telling=telling,
                prefix=f"bench-{secrets.token_hex(3)}", server_pids=pids,
            )  # fmt: skip
            await found.open()
            try:
                yield found
            finally:
                await found.forget()
                await found.postgres.close()
                await found.parts.close()


async def _servers(
    home: Path, stack: contextlib.AsyncExitStack
) -> tuple[str, str, Mapping[str, int]]:
    given = os.environ.get("AURORA_TEST_REDIS_URL"), os.environ.get("AURORA_TEST_DATABASE_URL")
    if given[0] and given[1]:
        database = await stack.enter_async_context(_own_database(given[1]))
        return given[0], database, {}
    # Room for a backlog of 10^6 and its results: 2 GB.
    valkey = EmbeddedValkey(home / "valkey", maxmemory="8gb")
    postgres = EmbeddedPostgres(home / "postgres")
    stack.callback(valkey.stop)
    stack.callback(postgres.stop)
    urls = await asyncio.to_thread(valkey.start), await asyncio.to_thread(postgres.start)
    return *urls, {"valkey": valkey.pid, "postgres": postgres.pid}


@contextlib.asynccontextmanager
async def _own_database(url: str) -> AsyncIterator[str]:
    name = f"aurora_bench_{secrets.token_hex(4)}"
    plain = url.replace("+asyncpg", "")
    await _administer(plain, f"CREATE DATABASE {name}")
    try:
        yield urlunsplit(urlsplit(plain)._replace(path=f"/{name}"))
    finally:
        await _administer(plain, f"DROP DATABASE {name} WITH (FORCE)")


async def _administer(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for each in statements:
            await connection.execute(each)
    finally:
        await connection.close()


def per_task(
    before: Mapping[str, float], after: Mapping[str, float], tasks: int
) -> dict[str, float]:
    """Microseconds of CPU for each task, by process name."""
    return {name: (after[name] - before.get(name, 0.0)) * 1e6 / tasks for name in after}
