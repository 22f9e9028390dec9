"""`aurora doctor`: one line a check, what is wrong and what to type."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli import opening
from orchestrator.cli.output import Format, harmless, one_line, show_list
from orchestrator.errors import OrchestratorError

if TYPE_CHECKING:
    from orchestrator.parts import Parts
    from orchestrator.settings import Settings

ALIVE = 30_000  # milliseconds since a consumer last asked for something
LIVEZ_SECONDS = 1.0
WHO_READS = {
    "orchestrator": "aurora worker",
    "recorder": "aurora recorder",
    "auditor": "aurora recorder",
    "alert-handler": "aurora alerts",
    "cps-alert-handler": "aurora alerts",
}


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must be so."""

    name: str
    ok: bool
    said: str
    fix: str = ""  # what to type; empty where `said` has it


def doctor(
    output: Annotated[Format, typer.Option("--output", "-o")] = Format.TABLE,
) -> None:
    """Check settings, servers, schema, agents and queues; say what is wrong and what to type."""
    checks = asyncio.run(_examine(output))
    if output is not Format.TABLE:
        rows = [{"check": c.name, "ok": c.ok, "said": c.said, "fix": c.fix} for c in checks]
        show_list(rows, output, columns=(), nothing="")
    wrong = sum(not each.ok for each in checks)
    if wrong:
        print(f"{wrong} of {len(checks)} checks failed", file=sys.stderr)
        raise typer.Exit(1)


async def _examine(output: Format) -> list[Check]:
    checks = []
    async for each in _checks():
        checks.append(each)
        if output is Format.TABLE:
            print(_line(each), flush=True)
    return checks


async def _checks() -> AsyncIterator[Check]:
    try:
        settings = opening.settings()
    except OrchestratorError as error:
        yield Check("settings", ok=False, said=one_line(error))
        return
    given = sorted(settings.model_fields_set)
    yield Check("settings", ok=True, said=f"given: {', '.join(given)}" if given else "defaults")
    from orchestrator.parts import Parts

    parts = Parts(settings, role="doctor")
    try:
        redis = await _check(
            "Redis", parts.streams.check_server(),
            fix="start it, or set AURORA_REDIS_URL; `aurora dev` brings its own",
        )  # fmt: skip
        yield redis
        if redis.ok:
            yield await _check("groups", _groups(parts), fix="start: aurora up")
            yield await _check("queues", _queues(parts))
            yield await _check("room", _room(parts), fix="start more workers, or wait")
            yield await _check("providers", _providers(parts))
        postgres = await _check(
            "Postgres", _postgres(parts),
            fix="start it, or set AURORA_DATABASE_URL; `aurora dev` brings its own",
        )  # fmt: skip
        yield postgres
        if postgres.ok:
            yield await _check("schema", _schema(parts))
        if settings.mqtt_url is not None:
            yield await _check("bridge", _bridge(parts), fix="start it, or mend its access list")
    finally:
        await parts.close()
    yield await _check("agents", _agents(settings))
    yield await _check("port", _port(settings))


async def _check(name: str, work: Awaitable[str], *, fix: str = "") -> Check:
    from orchestrator.errors import ConfigurationError

    try:
        return Check(name, ok=True, said=await work)
    except OrchestratorError as error:
        # A ConfigurationError says itself what would be right.
        return Check(
            name, ok=False, said=one_line(error),
            fix="" if isinstance(error, ConfigurationError) else fix,
        )  # fmt: skip


async def _groups(parts: "Parts") -> str:
    from orchestrator.streams.statistics import missing_groups

    if missing := await missing_groups(parts.streams):
        raise OrchestratorError(f"no consumer group yet: {', '.join(missing)}")
    return "every stream has its consumer groups"


async def _queues(parts: "Parts") -> str:
    """Entries that wait for a group of which nobody is alive."""
    from orchestrator.streams.statistics import read

    waiting = []
    for stream in await read(parts.streams):
        behind = {each.group: each.backlog + each.pending for each in stream.groups}
        for group in _required(parts, stream.key):
            # A group that nobody has made yet will begin at the stream's beginning.
            entries = behind.get(group, stream.length)
            if entries and not (group in behind and await _alive(parts, stream.key, group)):
                waiting.append(
                    f"{entries} entries of {stream.key} wait for the group {group} and nobody"
                    f" reads; start: {WHO_READS[group]}{_queue_option(parts, stream.key)}"
                )
    if waiting:
        raise OrchestratorError("; ".join(waiting))
    return "nothing waits without a reader"


async def _room(parts: "Parts") -> str:
    if (why := await parts.room.refusal()) is not None:
        raise OrchestratorError(f"new tasks are refused: {why}")
    return "new tasks are accepted"


async def _providers(parts: "Parts") -> str:
    """Of models, those that have refused within the last hour."""
    from orchestrator.streams import gates

    said = [
        f"{each.provider} "
        + (f"is left alone for {each.closed:.0f} s" if each.closed else "answers")
        + (f" at {60 * each.pace:.0f} requests a minute" if each.pace and not each.closed else "")
        + (f", {each.waiting} calls wait" if each.waiting else "")
        for each in await gates.read(parts.streams)
    ]
    return "; ".join(said) or "none limits, none is away"


def _required(parts: "Parts", key: str) -> tuple[str, ...]:
    from orchestrator.streams.names import STREAMS, TASKS

    stream = next((each for each in STREAMS if parts.streams.keys.of(each) == key), TASKS)
    return stream.groups


async def _alive(parts: "Parts", key: str, group: str) -> bool:
    from orchestrator.streams.connection import translated

    with translated():
        consumers = await parts.streams.commands.xinfo_consumers(key, group)
    return any(each["idle"] < ALIVE for each in consumers)


def _queue_option(parts: "Parts", key: str) -> str:
    tasks = parts.streams.keys.tasks
    if not key.startswith(f"{tasks}:"):
        return ""
    queue = key.removeprefix(f"{tasks}:").split(":")[0]
    return "" if queue in {"high", "low"} else f" --queue {queue}"


async def _postgres(parts: "Parts") -> str:
    (found,) = await parts.read("SHOW server_version", {})
    return f"PostgreSQL {found['server_version'].split()[0]}"


async def _schema(parts: "Parts") -> str:
    from orchestrator.db import schema

    await schema.check(parts.database)
    return f"at {schema.head()}"


async def _agents(settings: "Settings") -> str:
    from orchestrator.registry import load_agents

    found = load_agents(settings.agents)
    return f"{len(found)}: {', '.join(found.by_name)}" if len(found) else "none"


async def _bridge(parts: "Parts") -> str:
    """The mappings, and a look at the broker under a name that no bridge has."""
    from pathlib import Path

    from orchestrator.app import open_broker
    from orchestrator.mapping import load_mappings

    mappings = load_mappings(Path(parts.settings.bridge_mappings))
    broker = open_broker(parts.settings, looking=True)
    connection = await broker.connect([each.topic_filter for each in mappings])
    await connection.close()
    return f"{len(mappings)} mappings; the broker at {broker.address} lets us in" + await _bridging(
        parts
    )


async def _bridging(parts: "Parts") -> str:
    from contextlib import suppress

    from orchestrator.errors import Unavailable
    from orchestrator.streams import bridges

    with suppress(Unavailable):
        found = {each.client_id: each for each in await bridges.read(parts.streams)}
        ours = found.get(parts.settings.mqtt_client_id)
        if ours is None or not ours.connected:
            return "; no bridge is connected; start: aurora bridge"
    return ""


async def _port(settings: "Settings") -> str:
    from orchestrator.api.server import listen

    try:
        listen(settings.host, settings.port).close()
    except OrchestratorError:
        if await _is_ours(settings.host, settings.port):
            return f"an API answers at {settings.host}:{settings.port}"
        raise
    return f"{settings.host}:{settings.port} is free for the API"


async def _is_ours(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(LIVEZ_SECONDS):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(b"GET /livez HTTP/1.0\r\nHost: doctor\r\n\r\n")
            answer = await reader.read(4096)
            writer.close()
    except (OSError, TimeoutError):
        return False
    return b" 200 " in answer.partition(b"\n")[0] and b"x-request-id" in answer.lower()


def _line(check: Check) -> str:
    mark = "✓" if check.ok else "✗"
    if sys.stdout.isatty() and "NO_COLOR" not in os.environ:
        mark = f"\x1b[{32 if check.ok else 31}m{mark}\x1b[0m"
    said = harmless(check.said) + (f"; {check.fix}" if check.fix else "")
    return f"{mark} {check.name:<9} {said}"
