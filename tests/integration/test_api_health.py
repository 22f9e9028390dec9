"""/livez, /readyz and /metrics, without a key and without the inside."""

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import text

from orchestrator.api.recently import Recently
from orchestrator.api.routes import health
from orchestrator.db.session import Database
from orchestrator.provider import Limited, Place
from orchestrator.settings import Settings
from orchestrator.streams import bridges
from orchestrator.streams.bridges import BridgeFigures
from orchestrator.streams.connection import Streams
from orchestrator.streams.gates import Gates
from orchestrator.task import new_id
from tests.api import Api, assert_problem, serving


@pytest.fixture
async def api(settings: Settings, database: Database, streams: Streams) -> AsyncIterator[Api]:
    async with serving(settings, database, streams) as found:
        yield found


async def _metrics(api: Api) -> dict[str, float]:
    async with api.anonymous() as client:
        answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = [line for line in answer.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


async def test_ready_when_servers_schema_and_groups_are_there(api: Api):
    """A line for each check."""
    await api.parts.streams.ensure_all_groups()

    async with api.anonymous() as client:
        alive, ready = await client.get("/livez"), await client.get("/readyz")

    assert alive.json() == {"status": "alive"}
    assert ready.status_code == 200
    checks = {each["name"]: each["ok"] for each in ready.json()["checks"]}
    assert checks == {"redis": True, "postgres": True, "schema": True, "groups": True}


async def test_ready_and_refusing_new_tasks(api: Api):
    """P8: told, and no reason to take the process out of service."""
    await api.parts.streams.ensure_all_groups()
    await api.submit()
    api.parts.submitter.room.max_backlog = 1

    async with api.anonymous() as client:
        ready = await client.get("/readyz")

    assert ready.status_code == 200
    said = {each["name"]: each["said"] for each in ready.json()["checks"]}
    assert said["room"] == "no new tasks for now: 1 tasks wait already (AURORA_MAX_BACKLOG=1)"
    assert (await _metrics(api))["aurora_tasks_unpublished"] == 1  # no recorder has seen it


async def test_not_ready_without_groups_or_schema(api: Api):
    """503 names the check that fails and what would be right."""
    async with api.parts.database.transaction() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '0000'"))

    async with api.anonymous() as client:
        body = assert_problem(await client.get("/readyz"), 503, "not_ready")

    said = {each["name"]: each["said"] for each in body["checks"] if not each["ok"]}
    assert set(said) == {"schema", "groups"}
    assert "aurora db upgrade" in said["schema"]
    assert "agent:tasks orchestrator" in said["groups"]


async def test_not_ready_and_still_alive_with_the_servers_away(settings: Settings, keys: Any):
    """What the log knows of hosts and ports stays there."""
    nowhere = Streams("redis://127.0.0.1:1/0", keys)
    nothing = Database("postgresql+asyncpg://nobody@127.0.0.1:1/nothing")
    parts = {"settings": settings, "streams": nowhere, "database": nothing}
    ready = await health.Readiness(_Parts(**parts)).get()
    await nowhere.close()
    await nothing.close()

    assert [each.ok for each in ready.checks] == [False] * 4
    assert "127.0.0.1" not in ready.model_dump_json()


class _Parts:
    def __init__(self, **parts: Any) -> None:
        self.__dict__.update(parts)


async def test_metrics_tell_the_condition_of_streams_and_record(api: Api):
    """The names of user-experience 1.6."""
    streams, tasks = api.parts.streams, api.parts.streams.keys.tasks
    await streams.ensure_all_groups()
    ids = [await api.submit() for _ in range(3)]
    await api.client.post(f"/api/v1/tasks/{ids[0]}/cancel")
    await streams.commands.xreadgroup("orchestrator", "w", {tasks: ">"}, count=2)
    async with api.parts.database.transaction() as connection:
        await connection.execute(
            text(
                "INSERT INTO dead_letters (id, stream, entry_id, reason, detail, fields)"
                " VALUES (:id, 's', '1-0', 'malformed', '', '{}')"
            ),
            {"id": new_id()},
        )

    found = await _metrics(api)

    of = f'group="orchestrator",stream="{tasks}"'
    by_group = {re.sub(r"\{.*", "", name): value for name, value in found.items() if _has(name, of)}
    assert found[f'aurora_stream_length_entries{{stream="{tasks}"}}'] == 3
    assert by_group["aurora_stream_pending_entries"] == 2
    assert by_group["aurora_stream_backlog_entries"] == 1
    assert 0 <= by_group["aurora_stream_oldest_pending_seconds"] < 60
    assert found['aurora_tasks{state="queued"}'] == 3
    assert found['aurora_tasks{state="running"}'] == 0
    assert 0 < found['aurora_tasks_oldest_waiting_seconds{queue="default"}'] < 60
    assert found["aurora_dead_letters_open"] == 1
    assert found['aurora_build_info{version="0.1.0"}'] == 1
    assert found['aurora_server_up{server="redis"}'] == 1


def _has(name: str, labels: str) -> bool:
    return all(label in name for label in labels.split(","))


async def test_a_bridge_is_told_of_wherever_it_runs(api: Api, streams: Streams):
    """By way of Redis: a process without HTTP has its figures here."""
    messages = {("pressure", "alert"): 3, ("none", "set_aside"): 1}
    await bridges.tell(
        streams, BridgeFigures(client_id="aurora-bridge", connected=True, messages=messages)
    )

    found = await _metrics(api)

    labels = 'client_id="aurora-bridge",mapping="pressure",outcome="alert"'
    assert found['aurora_mqtt_connected{client_id="aurora-bridge"}'] == 1
    assert found[f"aurora_mqtt_messages_total{{{labels}}}"] == 3


async def test_a_provider_that_limits_is_told_of(api: Api, streams: Streams):
    """How long its calls wait, and how many."""
    gates = Gates(streams)
    await gates.admit("openai:ab", first := Place())
    await gates.tell("openai:ab", Limited(retry_after=40), first)
    for _ in range(3):
        await gates.admit("openai:ab", Place())

    found = await _metrics(api)

    assert 30 < found['aurora_provider_gate_closed_seconds{provider="openai:ab"}'] <= 40
    assert found['aurora_provider_waiting_calls{provider="openai:ab"}'] == 3


async def test_requests_are_measured_by_route_and_never_by_path(api: Api):
    """Each label value is a series for ever."""
    await api.client.get(f"/api/v1/tasks/{new_id()}")
    await api.client.get("/api/v1/nothing")
    await api.client.get("/wp-login.php")
    async with api.anonymous() as client:
        await client.get("/api/v1/tasks")

    found = await _metrics(api)
    counts = {
        tuple(re.findall(r'="([^"]*)"', name)): value
        for name, value in found.items()
        if name.startswith("aurora_http_request_duration_seconds_count")
    }

    assert counts["GET", "/api/v1/tasks/{task_id}", "404"] == 1
    assert counts["GET", "unmatched", "404"] == 2
    assert counts["GET", "unmatched", "401"] == 1


async def test_metrics_are_told_also_with_redis_away(
    settings: Settings, database: Database, keys: Any
):
    """That it is away is the news."""
    nowhere = Streams("redis://127.0.0.1:1/0", keys)
    async with serving(settings, database, nowhere) as api:
        found = await _metrics(api)
    await nowhere.close()

    assert found['aurora_server_up{server="redis"}'] == 0
    assert found['aurora_server_up{server="postgres"}'] == 1
    assert 'aurora_tasks{state="queued"}' in found


async def test_what_is_asked_often_is_found_out_once_in_a_while():
    """Anybody may ask, so asking must be cheap."""
    clock, looks = [0.0], []

    async def look() -> int:
        looks.append(clock[0])
        return len(looks)

    recently = Recently(look, keep=5, clock=lambda: clock[0])

    answers = []
    for now in (0, 1, 4.9, 5, 9):
        clock[0] = now
        answers.append(await recently.get())

    assert answers == [1, 1, 1, 2, 2]
