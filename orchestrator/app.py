"""The composition root: Settings -> parts -> services. The only file that knows everything.

What needs Postgres is imported when it is first needed, so that a worker that only runs agents
stays small.
"""

import asyncio
import gc
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.client import set_submitter
from orchestrator.errors import ConfigurationError, Overloaded, Unavailable
from orchestrator.model_options import ModelOptions
from orchestrator.registry import AgentRegistry, load_agents
from orchestrator.runtime.dispatcher import Dispatcher, Limits
from orchestrator.runtime.isolated import IsolatedRunner
from orchestrator.runtime.lazy_asker import LazyAsker
from orchestrator.runtime.lease import Lease
from orchestrator.runtime.model_access import ModelDesk
from orchestrator.runtime.room import Room
from orchestrator.runtime.runner import Runner
from orchestrator.runtime.service import Service, run_services
from orchestrator.runtime.submitter import TaskSubmitter
from orchestrator.services.promoter import Promoter
from orchestrator.settings import Settings, load_settings
from orchestrator.streams.arbiter import Arbiter
from orchestrator.streams.connection import Streams
from orchestrator.streams.consumer import Consumer
from orchestrator.streams.gates import Gates
from orchestrator.streams.names import (
    ALERT_HANDLER,
    ALERTS,
    AUDITOR,
    CPS_ALERT_HANDLER,
    CPS_ALERTS,
    ORCHESTRATOR,
    RECORDER,
    Keys,
)
from orchestrator.streams.neighbours import Neighbours, scope_of, unique_name
from orchestrator.streams.publisher import Publisher
from orchestrator.streams.tail import ResultTail
from orchestrator.streams.tally import Tally
from orchestrator.tracing.current import set_tracing
from orchestrator.tracing.opening import open_tracing

if TYPE_CHECKING:
    from orchestrator.api.live import Live
    from orchestrator.api.parts import ApiParts
    from orchestrator.db.session import Database
    from orchestrator.db.tasks import TaskStore
    from orchestrator.embedded.llama import LocalModel
    from orchestrator.mqtt import Broker
    from orchestrator.tracing.spans import Tracing

logger = logging.getLogger("aurora.app")

READING_POOL = 4  # connections of the dashboard; a page takes two at a time
_HERE = ("localhost", "127.0.0.1", "::1")

Builder = Callable[["Parts"], Awaitable[list[Service]]]


class Parts:
    """What one process is made of, each part made when it is first asked for."""

    def __init__(
        self, settings: Settings, *, role: str, registry: AgentRegistry | None = None
    ) -> None:
        """Store. `registry`: given by tests and programs that have their agents at hand."""
        self.settings = settings
        self.name = unique_name(role)
        self._registry = registry

    @cached_property
    def registry(self) -> AgentRegistry:
        """The agents that the settings name. Raises ConfigurationError."""
        return self._registry or load_agents(self.settings.agents)

    @cached_property
    def tracing(self) -> "Tracing | None":
        """None where OpenTelemetry's variables name no collector."""
        content = self.settings.trace_content
        return open_tracing(os.environ, instance=self.name, content=content)

    @cached_property
    def streams(self) -> Streams:
        return self.open_streams()

    def open_streams(self, *, connections: int = 8) -> Streams:
        """Another door to Redis, with connections of its own."""
        return Streams(
            self.settings.redis_url.get_secret_value(),
            Keys(self.settings.prefix),
            connections=connections,
        )

    @cached_property
    def publisher(self) -> Publisher:
        return Publisher(self.streams, producer=self.name)

    @cached_property
    def neighbours(self) -> Neighbours:
        url = self.settings.redis_url.get_secret_value()
        scope = scope_of(url, self.settings.prefix)
        return Neighbours(self.settings.locks, scope=scope, name=self.name)

    @cached_property
    def database(self) -> "Database":
        from orchestrator.db.session import Database  # noqa: PLC0415 - loads SQLAlchemy

        return Database(self.settings.async_database_url, pool_size=self.settings.database_pool)

    @cached_property
    def reading(self) -> "Database":
        """For what people look at: given up after 2 s, and never short of connections for us."""
        from orchestrator.db.session import FOR_PEOPLE, Database  # noqa: PLC0415 - loads SQLAlchemy

        url = self.settings.async_database_url
        return Database(url, pool_size=READING_POOL, settings=FOR_PEOPLE)

    @cached_property
    def store(self) -> "TaskStore":
        from orchestrator.db.tasks import TaskStore  # noqa: PLC0415 - loads SQLAlchemy

        return TaskStore(self.database)

    @cached_property
    def arbiter(self) -> Arbiter:
        return Arbiter(self.streams, ttl=self.settings.marker_ttl)

    @cached_property
    def tail(self) -> ResultTail:
        return ResultTail(self.streams)

    @cached_property
    def submitter(self) -> TaskSubmitter:
        return TaskSubmitter(
            self.publisher,
            store=lambda: self.store,
            tail=self.tail,
            arbiter=self.arbiter,
            durability=self.settings.durability,
            max_payload=self.settings.max_payload,
            room=self.room,
            tracing=self.tracing,
        )

    @cached_property
    def live(self) -> "Live":
        from orchestrator.api.live import Live  # noqa: PLC0415 - loads SQLAlchemy

        return Live(self.streams, self.database, max_payload=self.settings.max_payload)

    @cached_property
    def room(self) -> Room:
        return Room(self.streams, max_backlog=self.settings.max_backlog)

    @cached_property
    def models(self) -> "Models":
        return Models(self.settings)

    def consumer(self, group: str) -> Consumer:
        """A new member of a group, under this process' name."""
        return Consumer(
            self.streams,
            group=group,
            name=self.name,
            lease=self.settings.lease,
            publisher=self.publisher,
            neighbours=self.neighbours,
        )

    async def read(self, sql: str, params: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Rows for agents (`ctx.query`), in a transaction that cannot write."""
        from orchestrator.db.reading import read  # noqa: PLC0415 - loads SQLAlchemy

        return await read(self.database, sql, params)

    async def close(self) -> None:
        """Close what was opened."""
        if "submitter" in self.__dict__:
            await self.submitter.close()
        if "tail" in self.__dict__:
            await self.tail.stop()
        if "live" in self.__dict__:
            await self.live.close()
        if "streams" in self.__dict__:
            await self.streams.close()
        if "reading" in self.__dict__:
            await self.reading.close()
        if "database" in self.__dict__:
            await self.database.close()
        if "tracing" in self.__dict__ and self.tracing is not None:
            await self.tracing.close()
        if "models" in self.__dict__:
            await self.models.close()
        if "neighbours" in self.__dict__:
            self.neighbours.leave()


class Models:
    """What agents are told of models: the options, and the one of this machine."""

    def __init__(self, settings: Settings) -> None:
        """Store."""
        self.options = settings.models
        self._locks = settings.locks
        self._file = settings.model_file

    @cached_property
    def _local(self) -> "LocalModel":
        from orchestrator.embedded.llama import LocalModel  # noqa: PLC0415 - an extra's
        from orchestrator.embedded.weights import cache_directory  # noqa: PLC0415

        cache = cache_directory(os.environ)
        # Beside the locks, not among them: a file there without a lock is one that ended.
        in_memory = self._locks.with_name(f"{self._locks.name}-model")
        folder = in_memory if in_memory.parent.is_dir() else cache / "model"
        return LocalModel(folder, cache=cache, file=self._file)

    async def told(self) -> ModelOptions:
        """The options."""
        return self.options

    async def local(self) -> str:
        """Start the model of this machine where it does not run; its address."""
        return await self._local.url()

    async def close(self) -> None:
        """End the model of this machine where we started it."""
        if "_local" in self.__dict__:
            await self._local.close()


@asynccontextmanager
async def connect(settings: Settings | None = None) -> AsyncIterator[TaskSubmitter]:
    """`async with orchestrator.connect():` - within it, `delay()` submits.

    Settings come from the environment unless given. Nothing is asked of the servers until the
    first call.
    """
    parts = Parts(settings or load_settings(dict(os.environ)), role="client")
    set_submitter(parts.submitter)
    set_tracing(parts.tracing)
    try:
        yield parts.submitter
    finally:
        set_submitter(None)
        set_tracing(None)
        await parts.close()


async def worker(parts: Parts) -> list[Service]:
    """Runs agents."""
    settings = parts.settings
    registry = parts.registry
    consumer = parts.consumer(ORCHESTRATOR)
    threads = ThreadPoolExecutor(
        max_workers=min(settings.concurrency, 128), thread_name_prefix="agent"
    )
    lease = Lease(
        lambda: parts.open_streams(connections=1),
        group=ORCHESTRATOR,
        consumer=consumer.name,
        lease=settings.lease,
        marker_ttl=settings.marker_ttl,
        # The dispatcher is made below, and hears of it long after.
        on_lost=lambda entries: dispatcher.lost(entries),  # noqa: PLW0108
    )
    dispatcher = Dispatcher(
        consumer,
        parts.publisher,
        registry,
        Runner(threads, max_output=settings.max_output),
        lease,
        isolated=IsolatedRunner(parts.submitter, parts.models, max_output=settings.max_output),
        submitter=parts.submitter,
        read=parts.read,
        desk=ModelDesk(
            Gates(parts.streams),
            Tally(parts.streams, worker=consumer.name, ttl=settings.marker_ttl),
            parts.read,
        ),
        asker=LazyAsker(parts.models.told, parts.models.local),
        queues=settings.queues or registry.queues,
        limits=Limits(
            concurrency=settings.concurrency,
            max_payload=settings.max_payload,
            max_starts=settings.max_starts,
            grace=settings.grace,
        ),
        marker_ttl=settings.marker_ttl,
        tracing=parts.tracing,
    )
    return [Promoter(parts.streams), dispatcher]


async def recorder(parts: Parts) -> list[Service]:
    """Keeps the record: recorder, auditor, reconciler, janitor."""
    from orchestrator.db.reconciling import OpenTasks  # noqa: PLC0415 - loads SQLAlchemy
    from orchestrator.services.auditor import Auditor  # noqa: PLC0415
    from orchestrator.services.janitor import Janitor  # noqa: PLC0415
    from orchestrator.services.reconciler import Reconciler  # noqa: PLC0415
    from orchestrator.services.recorder import Recorder  # noqa: PLC0415

    settings = parts.settings
    return [
        Reconciler(
            OpenTasks(parts.database),
            parts.publisher,
            parts.arbiter,
            parts.room,
            grace=settings.reconcile_grace,
            renewed=settings.marker_ttl - settings.lease,
            max_payload=settings.max_payload,
        ),
        Janitor(parts.publisher, lease=settings.lease),
        Recorder(
            parts.consumer(RECORDER),
            parts.database,
            max_payload=settings.max_payload,
            max_output=settings.max_output,
        ),
        Auditor(parts.consumer(AUDITOR), parts.database, max_payload=settings.max_payload),
    ]


async def alerts(parts: Parts) -> list[Service]:
    """Turns alerts into tasks, from both streams."""
    from orchestrator.services.alerts import AlertHandler  # noqa: PLC0415 - loads SQLAlchemy

    return [
        AlertHandler(
            parts.consumer(group),
            parts.database,
            parts.registry,
            stream=stream,
            kind=kind,
            publish=parts.submitter.publish_accepted,
            cancel=parts.submitter.cancel,
            max_payload=parts.settings.max_payload,
        )
        for group, stream, kind in (
            (ALERT_HANDLER, ALERTS, "network"),
            (CPS_ALERT_HANDLER, CPS_ALERTS, "cps"),
        )
    ]


async def scheduler(parts: Parts) -> list[Service]:
    """Fires schedules."""
    from orchestrator.db.schedules import ScheduleStore  # noqa: PLC0415 - loads SQLAlchemy
    from orchestrator.services.scheduler import Scheduler  # noqa: PLC0415

    return [
        Scheduler(ScheduleStore(parts.database), parts.submitter, parts.registry, name=parts.name)
    ]


async def bridge(parts: Parts) -> list[Service]:
    """Takes readings from an MQTT broker. Raises ConfigurationError."""
    settings = parts.settings
    broker = open_broker(settings)
    from orchestrator.mapping import load_mappings  # noqa: PLC0415 - for those who have a broker
    from orchestrator.services.bridge import Bridge  # noqa: PLC0415 - loads paho

    return [
        Bridge(
            broker,
            load_mappings(Path(settings.bridge_mappings)),
            parts.publisher,
            parts.room,
            max_payload=settings.mqtt_max_payload,
        )
    ]


def open_broker(settings: Settings, *, looking: bool = False) -> "Broker":
    """The broker that the settings name, not connected. Raises ConfigurationError.

    `looking`: under a name of our own, so that a bridge that runs keeps its session.
    """
    if settings.mqtt_url is None:
        raise ConfigurationError(
            "no MQTT broker; set AURORA_MQTT_URL=mqtts://user:password@host and"
            " AURORA_BRIDGE_MAPPINGS (docs/bridge.md)"
        )
    try:
        from orchestrator.mqtt import Broker, address_of, trust  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ConfigurationError(
            "the MQTT bridge needs its extra: pip install 'aurora-orchestrator[mqtt]'"
        ) from error
    address = address_of(settings.mqtt_url.get_secret_value())
    if address.password is not None and not address.tls and address.host not in _HERE:
        logger.warning(
            "the password for %s goes over the network in the clear; write mqtts://", address,
            extra={"event": "bridge.clear_text"},
        )  # fmt: skip
    certificates = (settings.mqtt_ca, settings.mqtt_certificate, settings.mqtt_key)
    return Broker(
        address,
        client_id=f"{settings.mqtt_client_id}-doctor" if looking else settings.mqtt_client_id,
        tls=trust(*certificates) if address.tls else None,
        session=settings.mqtt_session,
        clean=looking,
    )


async def api(parts: Parts, *, listener: socket.socket | None = None) -> list[Service]:
    """Serves HTTP, on a socket that listens already where the caller has one."""
    from orchestrator.api.server import HttpServer, listen  # noqa: PLC0415 - loads FastAPI
    from orchestrator.dashboard.site import create_site  # noqa: PLC0415

    settings = parts.settings
    application = create_site(api_parts(parts), reading=parts.reading)
    return [
        HttpServer(
            application,
            listener or listen(settings.host, settings.port),
            stopping=parts.live.stop,
        )
    ]


def api_parts(parts: Parts) -> "ApiParts":
    """What the API is given; `aurora dead redrive` borrows it."""
    from orchestrator.api.parts import ApiParts  # noqa: PLC0415 - loads FastAPI

    return ApiParts(
        settings=parts.settings,
        database=parts.database,
        streams=parts.streams,
        publisher=parts.publisher,
        submitter=parts.submitter,
        registry=parts.registry,
        live=parts.live,
        tracing=parts.tracing,
    )


# In the order in which they stop: what takes work in first, what records it last.
ROLES: dict[str, Builder] = {
    "api": api,
    "scheduler": scheduler,
    "alerts": alerts,
    "bridge": bridge,
    "worker": worker,
    "recorder": recorder,
}

INTAKE = ("api", "scheduler", "alerts", "bridge")  # stopped together, before the worker


def usable_roles(settings: Settings) -> list[str]:
    """Every role, the bridge only where there is a broker."""
    return [each for each in ROLES if each != "bridge" or settings.mqtt_url is not None]


async def run_roles(
    settings: Settings,
    roles: Sequence[str],
    *,
    registry: AgentRegistry | None = None,
    builders: Mapping[str, Builder] = ROLES,
    ready: Callable[[Parts], Awaitable[None]] | None = None,
) -> None:
    """Run these roles in this process until SIGTERM or SIGINT.

    Raises ConfigurationError and Unavailable where a server is not as it must be at the start.
    """
    parts = Parts(settings, role=roles[0] if len(roles) == 1 else "up", registry=registry)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    if parts.tracing is not None:
        parts.tracing.everywhere()
        set_tracing(parts.tracing)
    try:
        await parts.streams.check_server()
        if not set(roles) <= {"worker", "bridge"}:
            from orchestrator.db import schema  # noqa: PLC0415 - loads SQLAlchemy and alembic

            await schema.check(parts.database)
        await parts.streams.ensure_all_groups()
        parts.neighbours.enter()
        built = {role: await build(parts) for role, build in builders.items() if role in roles}
        takes_work_in = [each for role in INTAKE for each in built.pop(role, [])]
        groups = [takes_work_in, *built.values()]
        logger.info(
            "%s runs: %s", parts.name, ", ".join(each.name for group in groups for each in group),
            extra={"event": "process.started"},
        )  # fmt: skip
        _settle_memory()
        await _say(parts, "process.started", roles)
        if ready is not None:
            await ready(parts)
        await run_services(groups, stopped=stopped)
        await _say(parts, "process.stopped", roles)
    finally:
        await parts.close()


async def _say(parts: Parts, action: str, roles: Sequence[str]) -> None:
    """Note in the audit who was at work, and from when to when. One that was killed has no end."""
    detail = {"roles": list(roles), "version": version("aurora-orchestrator")}
    try:
        await parts.publisher.audit(
            action, object_type="process", object_id=parts.name, detail=detail
        )
    except (Unavailable, Overloaded) as error:  # no reason not to start, or not to end
        logger.warning("%s is not audited: %s", action, error, extra={"event": "process.unheard"})


def _settle_memory() -> None:
    """What was loaded at the start stays: the collector need not look at it again and again.

    Thousands of short-lived messages a second otherwise set it off all the time (a tenth of the
    drain's time, `python -m tests.benchmarks W2`).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
