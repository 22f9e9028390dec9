"""The demo's plot: two workers, alerts in waves, one worker killed with tasks in its hands."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import IO, Any

from orchestrator.app import alerts, recorder
from orchestrator.cli.demo_summary import Told, ask
from orchestrator.cli.demo_telling import Telling
from orchestrator.cli.tied import Tied, start_tied
from orchestrator.db import schema
from orchestrator.errors import OrchestratorError
from orchestrator.parts import Parts
from orchestrator.registry import AgentRegistry
from orchestrator.runtime.service import run_services
from orchestrator.settings import Settings, load_settings
from orchestrator.streams.connection import translated
from orchestrator.streams.names import ALERTS, AUDIT, AUDITOR, ORCHESTRATOR, RECORDER, RESULTS
from orchestrator.task import new_id

WORKERS = 2
CONCURRENCY = 8  # few, so that the worker that dies has not taken everything
LEASE = timedelta(seconds=3)  # short, so that nobody waits long for the other one to take over
WAVES = 4  # the first shows how it goes; in one of the others a worker dies
READING = 0.3  # seconds for a stopped worker to be given what it has asked for
PATIENCE = 30.0  # seconds for any one step
_PROGRESS = """
    SELECT (SELECT count(*) FROM alerts) AS alerts,
           (SELECT count(*) FROM tasks) AS tasks,
           (SELECT count(*) FROM results) AS results
"""
_UNHAPPY = "SELECT state, count(*) FROM tasks WHERE state <> 'succeeded' GROUP BY state"


class DemoFailed(OrchestratorError):
    """Something did not happen that should have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """The worker that was killed, and what it held."""

    pid: int
    at: datetime
    task_ids: tuple[str, ...]


def demo_settings(urls: Mapping[str, str], *, agents: str, model: str | None = None) -> Settings:
    """Settings of the demo, whatever the environment says."""
    return load_settings(
        {}, **urls, agents=(agents,), prefix="aurora", concurrency=CONCURRENCY, lease=LEASE,
        grace=timedelta(seconds=5), queues=(), model=model,
    )  # fmt: skip


class Story:
    """One run of the demo, on servers that are up and empty."""

    def __init__(
        self, settings: Settings, registry: AgentRegistry, *, telling: Telling, output: IO[bytes]
    ) -> None:
        """Store. `output`: where the workers write what they have to say."""
        self.settings = settings
        self.telling = telling
        self.output = output
        self.parts = Parts(settings, role="demo", registry=registry)
        self._total = 0  # alerts of the sample
        self._workers: list[Tied] = []
        self._keeping: asyncio.Task[None] | None = None

    async def run(
        self,
        sample: Sequence[bytes],
        show: Callable[[Told], None],
        then: Callable[[Parts], Awaitable[None]] | None = None,
    ) -> None:
        """From an empty database to the summary, which `show` is given. Raises DemoFailed.

        `then` goes on while everything still runs.
        """
        stopped = asyncio.Event()
        try:
            await self._set_the_stage(stopped)
            kill = await self._play(sample)
            show(await ask(self.parts, killed_at=kill.at, task_ids=kill.task_ids, lease=LEASE))
            if then is not None:
                await then(self.parts)
        finally:
            await self._clear_the_stage(stopped)

    async def _set_the_stage(self, stopped: asyncio.Event) -> None:
        parts, say = self.parts, self.telling.step
        starting = [await self._start_worker() for _ in range(WORKERS)]
        redis = await parts.streams.check_server()
        (found,) = await parts.read("SHOW server_version", {})
        await schema.upgrade(parts.database)
        await parts.streams.ensure_all_groups()
        say(f"{redis} and PostgreSQL {found['server_version'].split()[0]} are up, in a temporary"
            " directory")  # fmt: skip
        services = [*await alerts(parts), *await recorder(parts)]
        self._keeping = asyncio.create_task(run_services([services], stopped=stopped))
        self._workers = starting
        await self._until(self._all_ready, what="both workers reading")
        names = ", ".join(parts.registry.by_name)
        say(f"{WORKERS} workers run (processes {' and '.join(str(w.pid) for w in self._workers)});"
            f" agents: {names}")  # fmt: skip

    async def _play(self, sample: Sequence[bytes]) -> Kill:
        self._total = len(sample)
        size = -(-len(sample) // WAVES)
        kill: Kill | None = None
        sent = 0
        for start in range(0, len(sample), size):
            wave = list(sample[start : start + size])
            await self.parts.publisher.publish_alerts([(ALERTS, new_id(), each) for each in wave])
            sent += len(wave)
            self.telling.step(f"{sent} alerts published to {self.parts.settings.prefix}:alerts")
            if start and kill is None:
                # In the last wave one task will do.
                least = 1 if sent == len(sample) else CONCURRENCY // 2
                kill = await self._kill_somebody_busy(sent, least=least)
            if kill is None:
                await self._until(partial(self._all_recorded, sent), what="every alert recorded")
        if kill is None:
            raise DemoFailed("no worker was caught with a task in its hands; try again")
        await self._until(partial(self._all_recorded, sent), what="every task ended")
        await self._until(self._audited, what="every act audited")
        if unhappy := await self.parts.read(_UNHAPPY, {}):
            raise DemoFailed(f"tasks that did not succeed: {unhappy}")
        self.telling.step(f"all {sent} alerts have a verdict in Postgres")
        return kill

    async def _kill_somebody_busy(self, total: int, *, least: int) -> Kill | None:
        """SIGKILL the first worker while it holds tasks; None when the wave was over before."""
        victim = self._workers[0]
        while not await self._all_recorded(total):
            name, pending = await self._consumer(victim)
            # Asked in one call, as on a busy machine it has ended what it held before a second and
            # a third are answered. Where one task will do, it is stopped without being asked.
            if least > 1 and pending < least:
                continue
            if (kill := await self._kill(victim, name, least=least)) is not None:
                self.telling.step(
                    f"worker {kill.pid} killed (SIGKILL) with {len(kill.task_ids)} tasks in"
                    " its hands",
                    mark="✗", style="red",
                )  # fmt: skip
                self.telling.step(
                    "the other one sees it end and takes them; from another machine it would wait"
                    f" for their lease, {LEASE.seconds} s",
                    mark="·", style="dim",
                )  # fmt: skip
                return kill
        return None

    async def _kill(self, victim: Tied, name: str, *, least: int) -> Kill | None:
        # Stopped first, so that what it held is known exactly.
        os.kill(victim.pid, signal.SIGSTOP)
        before: list[str] = []
        # What it said before it was stopped may still be on its way, and what it has asked for:
        # look until nothing changes.
        enough = time.monotonic() + READING
        while (held := await self._in_hand(name)) != before or (
            len(held) < least and time.monotonic() < enough
        ):
            before = held
            await asyncio.sleep(0.02)
        if len(held) < least:
            os.kill(victim.pid, signal.SIGCONT)
            return None
        at = datetime.now(UTC)
        victim.process.kill()
        await victim.process.wait()
        return Kill(pid=victim.pid, at=at, task_ids=tuple(held))

    async def _in_hand(self, consumer: str) -> list[str]:
        """Ids of the tasks that a worker has taken and not ended."""
        streams = self.parts.streams
        found = []
        with translated():
            for lane in streams.keys.lanes("default"):
                for each in await streams.commands.xpending_range(
                    lane, ORCHESTRATOR, min="-", max="+", count=1000, consumername=consumer
                ):
                    entry = await streams.commands.xrange(
                        lane, min=each["message_id"], max=each["message_id"]
                    )
                    found += [fields[b"id"].decode() for _, fields in entry]
        return found

    async def _consumer(self, worker: Tied) -> tuple[str, int]:
        """Its name, and how many entries of the normal lane it has in hand; "" before it reads."""
        streams = self.parts.streams
        with translated():
            consumers = await streams.commands.xinfo_consumers(streams.keys.tasks, ORCHESTRATOR)
        found = {each["name"].decode(): int(each["pending"]) for each in consumers}
        return next((each for each in found.items() if f"-{worker.pid}-" in each[0]), ("", 0))

    async def _all_ready(self) -> bool:
        return all(each.is_ready() for each in self._workers)

    async def _all_recorded(self, expected: int) -> bool:
        """Every alert has its row, and every task that they became its result."""
        (now,) = await self.parts.read(_PROGRESS, {})
        self.telling.count("alerts triaged", now["results"], self._total)
        return bool(now["alerts"] >= expected and now["results"] == now["tasks"])

    async def _audited(self) -> bool:
        streams = self.parts.streams
        return not await streams.lag(AUDIT, AUDITOR) and not await streams.lag(RESULTS, RECORDER)

    async def _until(self, condition: Callable[[], Awaitable[bool]], *, what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not await condition():
            if self._keeping is not None and self._keeping.done():
                self._keeping.result()
                raise DemoFailed("the recorder ended")
            if time.monotonic() > deadline:
                raise DemoFailed(f"waited {PATIENCE:.0f} s for this, in vain: {what}")
            await asyncio.sleep(0.02)

    async def _start_worker(self) -> Tied:
        settings = self.settings
        environment: dict[str, Any] = {
            "AURORA_REDIS_URL": settings.redis_url.get_secret_value(),
            "AURORA_DATABASE_URL": settings.database_url.get_secret_value(),
            "AURORA_AGENTS": ",".join(settings.agents),
            "AURORA_CONCURRENCY": str(settings.concurrency),
            "AURORA_LEASE": str(settings.lease.total_seconds()),
            "AURORA_GRACE": str(settings.grace.total_seconds()),
            "AURORA_PREFIX": settings.prefix,
            "AURORA_QUEUES": "",
            "AURORA_MODEL": settings.model or "",
        }
        return await start_tied(
            ["worker", "--log-level", "warning"], environment=environment, output=self.output
        )

    async def _clear_the_stage(self, stopped: asyncio.Event) -> None:
        for worker in self._workers:
            with contextlib.suppress(ProcessLookupError):
                worker.process.terminate()
        for worker in self._workers:
            await worker.process.wait()
        stopped.set()
        if self._keeping is not None:
            await self._keeping
        await self.parts.close()
