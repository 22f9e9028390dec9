"""`aurora worker`, `recorder`, `scheduler`, `bridge`, `api`, `up`: processes that run on."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli import logs, opening
from orchestrator.cli.tied import say_ready

if TYPE_CHECKING:
    from orchestrator.parts import Parts

LogLevel = Annotated[
    str,
    typer.Option("--log-level", metavar="LEVEL", help="debug, info, warning or error."),
]
Concurrency = Annotated[
    int | None,
    typer.Option("--concurrency", "-c", min=1, help="Tasks at a time [AURORA_CONCURRENCY]."),
]
Queues = Annotated[
    list[str] | None,
    typer.Option("--queue", "-q", help="A queue to read, may be repeated [AURORA_QUEUES]."),
]
Host = Annotated[str | None, typer.Option(help="Address to listen on [AURORA_HOST].")]
Port = Annotated[int | None, typer.Option(help="Port to listen on, 0: any free one [AURORA_PORT].")]
LEVELS = ("debug", "info", "warning", "error")


def serve(roles: Sequence[str], log_level: str, **given: Any) -> None:
    """Run these roles, or all, until SIGTERM or SIGINT. Raises ConfigurationError, Unavailable."""
    from orchestrator.app import run_roles, usable_roles

    if log_level not in LEVELS:
        raise typer.BadParameter(f"{log_level!r} is none of {', '.join(LEVELS)}")
    logs.set_up(log_level)

    async def ready(_: "Parts") -> None:
        say_ready()

    settings = opening.settings(**given)
    opening.run_long(run_roles(settings, roles or usable_roles(settings), ready=ready))


def worker(
    concurrency: Concurrency = None, queue: Queues = None, log_level: LogLevel = "info"
) -> None:
    """Run agents: take tasks from Redis, one attempt each."""
    serve(["worker"], log_level, concurrency=concurrency, queues=tuple(queue or ()))


def recorder(log_level: LogLevel = "info") -> None:
    """Keep the record: tasks, results and audit into Postgres; repair what Redis has lost."""
    serve(["recorder"], log_level)


def scheduler(log_level: LogLevel = "info") -> None:
    """Fire schedules. Run as many as you like: each tick fires once."""
    serve(["scheduler"], log_level)


def bridge(log_level: LogLevel = "info") -> None:
    """Take readings from an MQTT broker [AURORA_MQTT_URL, AURORA_BRIDGE_MAPPINGS]."""
    serve(["bridge"], log_level)


def api(host: Host = None, port: Port = None, log_level: LogLevel = "info") -> None:
    """Serve the HTTP API."""
    serve(["api"], log_level, host=host, port=port)


def up(
    roles: Annotated[
        str, typer.Option(metavar="ROLE,ROLE", help="Which ones; all unless given.")
    ] = "",
    concurrency: Concurrency = None,
    host: Host = None,
    port: Port = None,
    log_level: LogLevel = "info",
) -> None:
    """Run several roles in one process: api, scheduler, alerts, bridge, worker, recorder.

    The bridge is among all of them where AURORA_MQTT_URL names a broker.
    """
    from orchestrator.app import ROLES

    wanted = [each.strip() for each in roles.split(",") if each.strip()]
    if strange := [each for each in wanted if each not in ROLES]:
        raise typer.BadParameter(f"no role {strange[0]!r}; there are {', '.join(ROLES)}")
    serve(wanted, log_level, concurrency=concurrency, host=host, port=port)
