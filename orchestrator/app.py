"""The composition root: parts -> services, by role. The only file that knows everything.

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
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.client import set_submitter
from orchestrator.errors import ConfigurationError, Overloaded, Unavailable
from orchestrator.parts import Parts
from orchestrator.registry import AgentRegistry
from orchestrator.runtime.dispatcher import Dispatcher, Limits
from orchestrator.runtime.isolated import IsolatedRunner
from orchestrator.runtime.lazy_asker import LazyAsker
from orchestrator.runtime.lease import Lease
from orchestrator.runtime.model_access import ModelDesk
from orchestrator.runtime.runner import Runner
from orchestrator.runtime.service import Service, run_services
from orchestrator.runtime.submitter import TaskSubmitter
from orchestrator.services.promoter import Promoter
from orchestrator.settings import Settings, load_settings
from orchestrator.streams.gates import Gates
from orchestrator.streams.names import (
    ALERT_HANDLER,
    ALERTS,
    AUDITOR,
    CPS_ALERT_HANDLER,
    CPS_ALERTS,
    ORCHESTRATOR,
    RECORDER,
)
from orchestrator.streams.tally import Tally
from orchestrator.tracing.current import set_tracing

if TYPE_CHECKING:
    from orchestrator.api.parts import ApiParts
    from orchestrator.mqtt import Broker

logger = logging.getLogger("aurora.app")

_HERE = ("localhost", "127.0.0.1", "::1")

Builder = Callable[["Parts"], Awaitable[list[Service]]]


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
        witness=parts.witness,
        lanes=lambda: consumer.watched,
        # The dispatcher is made below, and hears of it long after.
        on_lost=lambda entries: dispatcher.lost(entries),  # noqa: PLW0108
    )
    dispatcher = Dispatcher(
        consumer,
        parts.publisher,
        registry,
        Runner(threads, max_output=settings.max_output, witness=parts.witness),
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
