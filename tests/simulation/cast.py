"""The real processes, composed by the real composition root, with the models at their ends."""

import asyncio
import contextlib
import importlib
import random
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from datetime import tzinfo as TzInfo  # noqa: N812
from functools import cache
from types import ModuleType
from typing import Any
from unittest.mock import patch
from uuid import UUID

from orchestrator import app
from orchestrator.agent import Agent
from orchestrator.context import RunContext
from orchestrator.outcome import Crashed, Fault, Outcome
from orchestrator.parts import Parts
from orchestrator.runtime.isolated import RESTART_AFTER
from orchestrator.runtime.lease import Lease
from orchestrator.runtime.runner import Runner
from orchestrator.runtime.service import run_services
from orchestrator.runtime.witness import Witness
from orchestrator.settings import Settings
from orchestrator.streams.neighbours import Seen
from tests.simulation import postgres_schedules
from tests.simulation.agents import NOTES, REGISTRY, Poison
from tests.simulation.postgres_model import Postgres, lock_known, write
from tests.simulation.postgres_store import ModelOpenTasks, ModelStore, accept
from tests.simulation.virtual import Process, VirtualLoop

LEASE = timedelta(seconds=2)


def settings_of(rng: random.Random) -> Settings:
    """Small, so that what is only seen under pressure is seen; some of it by the seed."""
    return _settings(rng.choices([1, 4, 8, 20], [1, 1, 4, 4])[0])


@cache  # frozen, and a twentieth of a seed's time to make
def _settings(concurrency: int) -> Settings:
    return Settings(
        redis_url="redis://model:6379/0",
        database_url="postgresql://model/aurora",
        queues=("default", "other"),
        lease=LEASE,
        reconcile_grace=timedelta(seconds=1),
        grace=timedelta(seconds=3),
        concurrency=concurrency,
    )


STORE = "tests.simulation.postgres_store"  # asks for the time in its callers' name
# By the composition root, when a role is built: what is patched must be there before.
IMPORTED_LATE = tuple(
    f"orchestrator.services.{name}" for name in ("reconciler", "janitor", "recorder", "auditor",
                                                 "scheduler")
)  # fmt: skip
CHILD_STARTS = 0.2  # seconds
# Seconds between looks of a worker with fewer slots than lanes, four times its own: no promise is
# about it, and idle looks were a seventh of such a seed.
POLL = 0.2


class OneLoopLease(Lease):
    """The same work in the same loop: in virtual time no thread is needed to be on time."""

    def start(self) -> None:
        self._main = asyncio.get_running_loop()
        self._work = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        self._stopping.set()
        await self._work


class ModelChild:
    """A process of its own for one attempt: its death is a value."""

    def __init__(self, *_: Any, max_output: int) -> None:
        self._runner = Runner(None, max_output=max_output)  # type: ignore[arg-type]

    async def run(self, agent: Agent[Any, Any], ctx: RunContext) -> Outcome:
        await asyncio.sleep(CHILD_STARTS)
        if isinstance(agent, Poison):
            NOTES.get().note(ctx)
            return Crashed(Fault(type="Crashed", message="its child died"), RESTART_AFTER)
        return await self._runner.run(agent, ctx)


class ModelNeighbours:
    """Who has ended, as the one machine knows on which they all run."""

    def __init__(self, look: Callable[[], Seen]) -> None:
        self.look = look

    def named(self) -> frozenset[str]:
        """Nothing: a process of the model dies between two steps."""
        return frozenset()


async def live(
    process: Process,
    role: str,
    settings: Settings,
    postgres: Postgres,
    neighbours: ModelNeighbours | None,
) -> None:
    """One process of this role, from its start to its stop."""
    parts = parts_of(process.name, settings, postgres)
    parts.__dict__["neighbours"] = neighbours
    parts.__dict__["witness"] = Witness()
    await parts.streams.check_server()
    await parts.streams.ensure_all_groups()
    services = await app.ROLES[role](parts)
    await run_services([services], stopped=asyncio.Event())


def parts_of(name: str, settings: Settings, postgres: Postgres) -> Parts:
    """Parts whose record is the model."""
    parts = Parts(settings, role="simulated", registry=REGISTRY)
    parts.name = name
    parts.__dict__["database"] = postgres
    parts.__dict__["store"] = ModelStore(postgres)
    return parts


@contextlib.contextmanager
def modelled(loop: VirtualLoop, rng: random.Random) -> Iterator[None]:
    """Time, chance and SQL are the simulation's."""
    for name in IMPORTED_LATE:
        importlib.import_module(name)
    ids = random.Random(rng.random())
    patches: list[Any] = [
        patch.object(time, "monotonic", loop.time),
        patch.object(time, "time", loop.wall),
        # What it says of itself takes a round trip of each connection.
        patch("redis.asyncio.connection.resolve_driver_info", lambda *_: None),
        patch("orchestrator.streams.consumer.POLL", POLL),
        patch("orchestrator.task.uuid7", lambda: _uuid7(loop, ids)),
        patch.object(app, "Lease", OneLoopLease),
        patch.object(app, "IsolatedRunner", ModelChild),
        patch("orchestrator.db.recording.lock_known", lock_known),
        patch("orchestrator.db.recording.write", write),
        patch("orchestrator.db.reconciling.OpenTasks", ModelOpenTasks),
        patch("orchestrator.db.schedules.ScheduleStore", postgres_schedules.ModelScheduleStore),
        patch("orchestrator.db.ticks._INSERT_TICKS", postgres_schedules.InsertTicks),
        patch("orchestrator.db.ticks._release", postgres_schedules.release),
        patch("orchestrator.db.ticks.clock", postgres_schedules.clock),
        patch("orchestrator.db.ticks.next_tick", postgres_schedules.next_tick),
        patch("orchestrator.db.ticks.due", postgres_schedules.due),
        patch("orchestrator.db.ticks.write_audit", postgres_schedules.write_audit),
        patch("orchestrator.db.ticks.accept", accept),
    ]
    clock = _clock(loop)
    patches += [patch.object(module, "datetime", clock) for module in _with_clocks()]
    with contextlib.ExitStack() as stack:
        for each in patches:
            stack.enter_context(each)
        random.seed(rng.random())
        yield


@cache
def _with_clocks() -> tuple[ModuleType, ...]:
    return tuple(
        module for name, module in sys.modules.items()
        if name.startswith(("orchestrator.", STORE))
        and getattr(module, "datetime", None) is datetime
    )  # fmt: skip


def _uuid7(loop: VirtualLoop, ids: random.Random) -> UUID:
    ms = int(loop.wall() * 1000)
    return UUID(int=ms << 80 | 7 << 76 | ids.getrandbits(12) << 64 | 2 << 62 | ids.getrandbits(62))


def _clock(loop: VirtualLoop) -> type[datetime]:
    class Is(type):
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, datetime)

    class Clock(datetime, metaclass=Is):
        @classmethod
        def now(cls, tz: TzInfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.fromtimestamp(loop.wall(), tz or UTC)

        @classmethod
        def fromisoformat(cls, text: str) -> datetime:  # type: ignore[override]
            return datetime.fromisoformat(text)

        @classmethod
        def fromtimestamp(cls, at: float, tz: TzInfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.fromtimestamp(at, tz)

    return Clock
