"""What runs inside `aurora dev` once its servers are up: roles, worker process, reload, banner."""

import asyncio
import contextlib
import importlib
import importlib.util
import logging
import socket
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from orchestrator.app import ROLES, Builder, api, run_roles, usable_roles
from orchestrator.cli.data_directory import DataDirectory
from orchestrator.cli.worker_process import Reloader, WorkerProcess
from orchestrator.db import schema
from orchestrator.db.keys import Scope, create_key, verify
from orchestrator.db.schedules import ScheduleStore
from orchestrator.errors import ConfigurationError, OrchestratorError
from orchestrator.parts import Parts
from orchestrator.registry import AgentRegistry, load_agents
from orchestrator.runtime.service import Service
from orchestrator.services.scheduler import Scheduler
from orchestrator.settings import Settings

logger = logging.getLogger("aurora.dev")

LOOK_EVERY = 0.02  # seconds, while we wait for the worker and the API
NEW_WORKER_SECONDS = 10.0  # until we go on without
LIVE = b"GET /livez HTTP/1.0\r\nHost: dev\r\n\r\n"


class DevSession:
    """One run of `aurora dev`. The servers, the lock and the listening socket are the caller's."""

    def __init__(
        self,
        settings: Settings,
        registry: AgentRegistry,
        *,
        listener: socket.socket,
        directory: DataDirectory,
        began: float,
    ) -> None:
        """Store. `began`: when the command started, on the monotonic clock."""
        self.settings = settings
        self.registry = registry
        self.listener = listener
        self.directory = directory
        self.began = began
        self.url = _url(listener)
        self.environment = {
            "AURORA_REDIS_URL": settings.redis_url.get_secret_value(),
            "AURORA_DATABASE_URL": settings.database_url.get_secret_value(),
        }

    async def run(self) -> None:
        """Until SIGTERM or SIGINT. Raises ConfigurationError, Unavailable."""
        parts = Parts(self.settings, role="dev")
        try:
            self.revision = await schema.upgrade(parts.database)
            self.key = await self._key(parts)
        finally:
            await parts.close()
        worker = WorkerProcess(self.environment, grace=self.settings.grace)
        # In the order in which they stop.
        builders: dict[str, Builder] = {
            "announcement": partial(self._announcement, worker),
            "reload": partial(self._reloader, worker),
            **{role: ROLES[role] for role in usable_roles(self.settings)},
            "api": partial(api, listener=self.listener),
            "worker": partial(self._worker, worker),
        }
        await run_roles(self.settings, list(builders), registry=self.registry, builders=builders)

    async def _announcement(self, worker: WorkerProcess, parts: Parts) -> list[Service]:
        return [Announcement(self, parts, worker)]

    async def _reloader(self, worker: WorkerProcess, parts: Parts) -> list[Service]:
        reload = partial(self._reload, parts, worker)
        return [Reloader(_folders(self.settings.agents, self.registry), reload)]

    async def _worker(self, worker: WorkerProcess, _: Parts) -> list[Service]:
        return [worker]

    async def _key(self, parts: Parts) -> str:
        """The key of an earlier start where it is still good, else a new one."""
        kept = self.directory.key
        if kept is not None and await verify(parts.database, kept) is not None:
            return kept
        _, key = await create_key(parts.database, "aurora dev", [Scope.ADMIN], actor="aurora dev")
        self.directory.keep_key(key)
        return key

    async def _reload(self, parts: Parts, worker: WorkerProcess, changed: Sequence[Path]) -> None:
        """Go on with the agents as they are now. Raises ConfigurationError, and nothing changes."""
        _forget_compiled(changed)
        fresh = load_agents_anew(self.settings.agents)
        await worker.replace()
        deadline = time.monotonic() + NEW_WORKER_SECONDS
        while not worker.is_ready and time.monotonic() < deadline:  # noqa: ASYNC110 - a pipe, looked at
            await asyncio.sleep(LOOK_EVERY)
        # In place: the API, the scheduler and the alert handlers hold this very registry.
        self.registry.by_name = fresh.by_name
        scheduler = Scheduler(
            ScheduleStore(parts.database), parts.submitter, self.registry, name=parts.name
        )
        try:
            await scheduler.declare()
        except ConfigurationError as error:
            logger.error("schedules stay as they were: %s", error)  # noqa: TRY400 - no surprise


class Announcement:
    """Says when everything is up, to people and to `<data-dir>/env`. A service too."""

    name = "announcement"

    def __init__(self, session: DevSession, parts: Parts, worker: WorkerProcess) -> None:
        """Store."""
        self.session = session
        self.parts = parts
        self.worker = worker
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Others must not find us any longer."""
        if sys.stdout.isatty() and not self._stop.is_set():
            print("\r  stopping: what runs may finish ...", flush=True)
        self.session.directory.forget_urls()
        self._stop.set()

    async def run(self) -> None:
        """Wait until all answer, then say so."""
        while not self._stop.is_set():
            with contextlib.suppress(OrchestratorError, OSError):
                if self.worker.is_ready and await self._api_answers():
                    self._publish()
                    print(await self._banner(), flush=True)
                    await self._stop.wait()
            await asyncio.sleep(LOOK_EVERY)

    async def _api_answers(self) -> bool:
        host, port = self.session.listener.getsockname()[:2]
        reader, writer = await asyncio.open_connection(host, port)
        try:
            writer.write(LIVE)
            return b" 200 " in await reader.readline()
        finally:
            writer.close()

    def _publish(self) -> None:
        self.session.directory.publish_urls(
            {
                **self.session.environment,
                "AURORA_API_URL": self.session.url,
                "AURORA_API_KEY": self.session.key,
            }
        )

    async def _banner(self) -> str:
        session, agents = self.session, self.session.registry.by_name
        redis = await self.parts.streams.check_server()
        (found,) = await self.parts.read("SHOW server_version", {})
        tick = _coloured("✓", 32) + " "
        seconds = time.monotonic() - session.began
        env = _shown(session.directory.env)
        marks = "   ".join(
            tick + each
            for each in (
                redis,
                f"PostgreSQL {found['server_version'].split()[0]}",
                f"schema at {session.revision}",
                f"{len(agents)} agents: {', '.join(agents)}",
            )
        )
        lines = [
            marks,
            "",
            f"Dashboard {_coloured(session.url, 36)}   (sign in with the key below)",
            f"API       {session.url}/api/v1   (/openapi.json describes it)",
            f"API key   {session.key}",
            f"Settings  {env}   for other programs: set -a; . {env}; set +a",
            "",
            f"Ready after {seconds:.1f} s. Agents reload when a file changes. In another terminal:",
            "    aurora agents list      aurora run AGENT JSON      aurora tasks list",
            "Ctrl-C stops everything.",
        ]
        return "\n" + "\n".join(f"  {line}".rstrip() for line in lines) + "\n"


def load_agents_anew(sources: Sequence[str]) -> AgentRegistry:
    """Import the agents again. Raises ConfigurationError, and then the modules are as before."""
    roots = {Path(each).resolve().name if _is_path(each) else each for each in sources}
    old = {
        name: sys.modules.pop(name)
        for name in list(sys.modules)
        if any(name == root or name.startswith(f"{root}.") for root in roots)
    }
    importlib.invalidate_caches()
    try:
        return load_agents(sources)
    except BaseException:
        sys.modules.update(old)
        raise


def _forget_compiled(changed: Sequence[Path]) -> None:
    # Python compares times to the second: two edits within one would be taken for none.
    for path in changed:
        Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)


def _folders(sources: Sequence[str], registry: AgentRegistry) -> list[Path]:
    """What to watch: the folders, and where modules that were named stand."""
    modules: list[Any] = [sys.modules[agent.__module__] for agent in registry]
    found = {Path(module.__file__).parent for module in modules if module.__file__}
    found |= {Path(each).resolve() for each in sources if _is_path(each)}
    return sorted(found)


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    if host in {"0.0.0.0", "::"}:  # noqa: S104 - somebody asked for every address; we show one
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _is_path(source: str) -> bool:
    return "/" in source or source.startswith(".") or Path(source).is_dir()


def _shown(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _coloured(text: str, code: int) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if sys.stdout.isatty() else text
