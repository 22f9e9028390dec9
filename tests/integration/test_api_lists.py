"""Lists by keyset: each row once, whatever is written meanwhile; and the rows of each noun."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from orchestrator.db.columns import A_PERSON, AN_ACT
from orchestrator.db.session import Database
from orchestrator.services.auditor import Auditor
from orchestrator.settings import Settings
from orchestrator.streams.connection import Streams
from orchestrator.streams.consumer import Consumer
from orchestrator.streams.names import AUDITOR
from tests.api import Api, serving
from tests.support import wait_until


@pytest.fixture
async def api(settings: Settings, database: Database, streams: Streams) -> AsyncIterator[Api]:
    async with serving(settings, database, streams) as found:
        yield found


async def _all(api: Api, path: str, **params: Any) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    while True:
        body = (await api.client.get(path, params=params)).json()
        assert len(body["items"]) <= params["limit"]
        items += body["items"]
        if body["next_cursor"] is None:
            return items
        params["cursor"] = body["next_cursor"]


async def test_pages_hold_every_task_once_newest_first(api: Api):
    """Also those that were born at the same moment."""
    bodies = [{"agent": "echo", "input": {"text": str(n)}} for n in range(7)]
    answer = await api.client.post("/api/v1/tasks/bulk", json=bodies)
    ids = [each["id"] for each in answer.json()["items"]]

    for limit in (1, 2, 3, 7, 50):
        found = await _all(api, "/api/v1/tasks", limit=limit)
        assert [each["id"] for each in found] == sorted(ids, reverse=True)
    assert "input" not in found[0]


async def test_a_task_that_arrives_between_two_pages_moves_none(api: Api):
    """Where OFFSET would show one twice."""
    ids = [await api.submit() for _ in range(4)]
    first = (await api.client.get("/api/v1/tasks", params={"limit": 2})).json()

    await api.submit()
    second = await api.client.get(
        "/api/v1/tasks", params={"limit": 2, "cursor": first["next_cursor"]}
    )

    shown = [each["id"] for each in first["items"] + second.json()["items"]]
    assert shown == ids[::-1]


async def test_filters_choose_tasks(api: Api):
    """Each of them, and together."""
    plain = await api.submit()
    side = await api.submit(agent="anything", queue="side", tenant="soc-2")
    ended = await api.submit()
    await api.client.post(f"/api/v1/tasks/{ended}/cancel")
    async with api.parts.database.transaction() as connection:
        await connection.execute(
            text("UPDATE tasks SET state = 'cancelled', created_at = :at WHERE id = :id"),
            {"id": ended, "at": datetime.now(UTC) - timedelta(days=2)},
        )
    yesterday = (datetime.now(UTC) - timedelta(days=1)).isoformat()

    for params, expected in (
        ({"agent": "anything"}, {side}),
        ({"queue": "default"}, {plain, ended}),
        ({"tenant": "soc-2"}, {side}),
        ({"state": "cancelled"}, {ended}),
        ({"state": "queued"}, {plain, side}),
        ({"since": yesterday}, {plain, side}),
        ({"until": yesterday}, {ended}),
        ({"agent": "echo", "state": "queued"}, {plain}),
    ):
        found = await _all(api, "/api/v1/tasks", limit=50, **params)
        assert {each["id"] for each in found} == expected, params


async def test_the_audit_trail_is_listed_by_object_action_and_actor(api: Api):
    """What happened to one task, and what one key did."""
    task_id = await api.submit()
    await api.submit()
    await api.client.post(f"/api/v1/tasks/{task_id}/cancel")

    of_task = await _all(api, "/api/v1/audit", limit=1, object_id=task_id)
    queued = await _all(api, "/api/v1/audit", limit=50, action="task.queued")
    by_key = await _all(api, "/api/v1/audit", limit=50, actor=api.actor)

    assert [each["action"] for each in of_task] == ["task.cancel_requested", "task.queued"]
    assert len(queued) == 2
    reads = [each for each in by_key if each["action"] == "audit.read"]
    # Two pages, and the queue's; what this look itself leaves comes after it.
    assert len(reads) == 3
    assert len(by_key) == 3 + len(reads)
    assert all(each["at"].endswith("Z") for each in by_key)


async def test_the_audit_trail_is_searched(api: Api):
    """By kind of object, by kinds of acts, by what was said; a key is a key, whatever it did."""
    task_id = await api.submit()
    body = {"name": "nightly", "agent": "echo", "expression": "0 3 * * *", "timezone": "UTC",
            "input": {"text": "x"}}  # fmt: skip
    assert (await api.client.post("/api/v1/schedules", json=body)).status_code == 201
    since = (datetime.now(UTC) - timedelta(hours=1)).isoformat()

    async def found(**params: Any) -> list[str]:
        items = await _all(api, "/api/v1/audit", limit=50, **params)
        return [each["action"] for each in items if each["action"] != "audit.read"]

    assert await found(object_type="schedule") == ["schedule.created"]
    assert await found(action="schedule.*") == ["schedule.created"]
    assert await found(action="sched*") == ["schedule.created"]
    assert await found(action="task.*") == ["task.queued"]
    assert await found(action="*") == ["schedule.created", "task.queued", "key.created"]
    assert await found(actor=api.actor, object_type="schedule") == ["schedule.created"]
    assert await found(contains=task_id[:20].upper(), since=since) == ["task.queued"]
    assert await found(contains="%", object_type="schedule", since=since) == []
    alone = await api.client.get("/api/v1/audit", params={"contains": "x"})
    assert alone.status_code == 422
    assert "since" in alone.json()["detail"]


async def test_an_act_is_found_without_reading_every_task(api: Api):
    """The rare acts have their own index, which two rows a task do not lengthen."""
    async with api.parts.database.transaction() as connection:
        await connection.execute(
            text(
                "INSERT INTO audit_events (id, at, action, actor, object_type, object_id)"
                " SELECT gen_random_uuid(), now(), 'task.queued', 'w', 'task', n::text"
                " FROM generate_series(1, 20000) AS n"
            )
        )
        await connection.execute(text("ANALYZE audit_events"))
        for wanted in ("action = 'key.revoked' AND " + AN_ACT, f"actor = 'key:x' AND {A_PERSON}"):
            plan = "\n".join(
                await connection.scalars(
                    text(
                        f"EXPLAIN SELECT * FROM audit_events WHERE {wanted}"
                        " ORDER BY at DESC, id DESC LIMIT 51"
                    )
                )
            )
            assert "ix_audit_events_act" in plan or "ix_audit_events_person" in plan, plan


async def test_a_secret_does_not_reach_the_audit(api: Api):
    """Neither through an act of our own nor through another program's."""
    key = f"ak_{'a1' * 8}_{'b2' * 32}"
    await api.parts.publisher.audit(
        "note.made", object_type="note", object_id="1", detail={"password": "hunter2", "said": key}
    )
    consumer = Consumer(
        api.parts.streams,
        group=AUDITOR,
        name="a",
        lease=timedelta(seconds=2),
        publisher=api.parts.publisher,
    )
    auditor = Auditor(consumer, api.parts.database, max_payload=100_000)
    running = asyncio.create_task(auditor.run())

    async def noted() -> list[dict[str, Any]]:
        return await _all(api, "/api/v1/audit", limit=50, action="note.*")

    (item,) = await wait_until(noted, what="the act is recorded")
    auditor.stop()
    await running

    assert item["detail"] == {"password": "[redacted]", "said": f"ak_{'a1' * 8}_[redacted]"}


async def test_agents_are_listed_with_their_schemas(api: Api):
    """From which a form can be made."""
    listed = (await api.client.get("/api/v1/agents")).json()["items"]
    echo = (await api.client.get("/api/v1/agents/echo")).json()
    nobody = await api.client.get("/api/v1/agents/ecko")

    assert [each["name"] for each in listed] == ["anything", "echo"]
    assert echo["description"] == "Say it again."
    assert (echo["queue"], echo["timeout_ms"], echo["max_attempts"]) == ("default", 600_000, 3)
    assert echo["input_schema"]["properties"]["text"]["maxLength"] == 100
    assert echo["output_schema"] == {"type": "string"}
    assert echo["schedules"][0]["expression"] == "0 6 * * *"
    assert nobody.status_code == 404
    assert "did you mean 'echo'" in nobody.json()["detail"]
