"""Tasks over HTTP: submitted, replayed, read, listed, cancelled, retried."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from orchestrator.db.session import Database
from orchestrator.settings import Settings
from orchestrator.streams.connection import Streams
from orchestrator.task import idempotent_id
from tests.api import Api, assert_problem, serving

TASKS = "/api/v1/tasks"
HELLO = {"agent": "echo", "input": {"text": "hello"}}


@pytest.fixture
async def api(settings: Settings, database: Database, streams: Streams) -> AsyncIterator[Api]:
    async with serving(settings, database, streams) as found:
        yield found


async def _rows(api: Api, sql: str, **params: Any) -> list[Any]:
    async with api.parts.database.transaction() as connection:
        return list(await connection.execute(text(sql), params))


async def _entries(api: Api, key: str | None = None) -> list[dict[str, Any]]:
    found = await api.parts.streams.commands.xrange(key or api.parts.streams.keys.tasks)
    return [json.loads(fields[b"data"]) for _, fields in found]


async def test_a_submitted_task_has_a_row_an_entry_and_an_audit_event(api: Api):
    """202 with durability `database` means that Postgres has it."""
    answer = await api.client.post(TASKS, json=HELLO)

    body = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"{TASKS}/{body['id']}"
    assert body == {"id": body["id"], "agent": "echo", "state": "queued"}
    assert [each["task_id"] for each in await _entries(api)] == [body["id"]]
    rows = await _rows(api, "SELECT input FROM tasks WHERE id = :id", id=body["id"])
    assert rows[0].input == {"text": "hello", "times": 1}
    audit = await _rows(
        api, "SELECT actor, action FROM audit_events WHERE object_id = :id", id=body["id"]
    )
    assert [tuple(each) for each in audit] == [(api.actor, "task.queued")]


async def test_everything_that_a_task_can_be_asked_for_arrives(api: Api):
    """Queue, priority, times, tenant, metadata and an id of one's own."""
    now = datetime.now(UTC)
    body = {
        **HELLO, "queue": "side", "priority": "high", "tenant": "soc-2", "countdown": 60,
        "expires": 3600, "metadata": {"case": 7}, "task_id": "018f0000-0000-7000-8000-000000000001",
    }  # fmt: skip

    answer = await api.client.post(TASKS, json=body)
    task = (await api.client.get(f"{TASKS}/{body['task_id']}")).json()

    assert answer.json()["state"] == "scheduled"
    shown = {name: task[name] for name in ("queue", "priority", "tenant", "metadata", "state")}
    assert shown == {
        "queue": "side", "priority": "high", "tenant": "soc-2", "metadata": {"case": 7},
        "state": "scheduled",
    }  # fmt: skip
    assert task["run_at"].endswith("Z")
    waits = datetime.fromisoformat(task["run_at"]) - now
    assert timedelta(seconds=60) <= waits < timedelta(seconds=70)
    left = datetime.fromisoformat(task["expires_at"]) - now
    assert timedelta(seconds=3600) <= left < timedelta(seconds=3610)


@pytest.mark.parametrize("header", ["order-17", '"order-17"'])
async def test_an_idempotency_key_makes_a_repetition_the_same_task(api: Api, header: str):
    """Same key and body: one task, and the answer says that it is a replay."""
    headers = {"Idempotency-Key": header}

    first = await api.client.post(TASKS, json=HELLO, headers=headers)
    again = await api.client.post(TASKS, json=HELLO, headers=headers)

    assert (first.status_code, again.status_code) == (202, 202)
    derived = idempotent_id(tenant="default", agent="echo", key="order-17")
    assert first.json()["id"] == again.json()["id"] == derived
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert len(await _entries(api)) == 1


async def test_an_idempotency_key_with_another_body_is_a_conflict(api: Api):
    """It is never taken for the task that stands."""
    headers = {"Idempotency-Key": "order-17"}
    await api.client.post(TASKS, json=HELLO, headers=headers)

    other = await api.client.post(
        TASKS, json={"agent": "echo", "input": {"text": "x"}}, headers=headers
    )

    assert_problem(other, 409, "task_id_conflict")
    assert len(await _entries(api)) == 1


async def test_an_unknown_agent_is_refused_with_the_near_one(api: Api):
    """P10: the error says what would have been right."""
    body = assert_problem(
        await api.client.post(TASKS, json={"agent": "ecko", "input": {}}), 422, "unknown_agent"
    )

    assert "did you mean 'echo'" in body["detail"]
    assert body["errors"][0]["pointer"] == "/agent"
    assert not await _entries(api)


async def test_an_invalid_input_names_the_field(api: Api):
    """P10, by JSON pointer."""
    body = assert_problem(
        await api.client.post(TASKS, json={"agent": "echo", "input": {"times": "many"}}),
        422,
        "invalid_input",
    )

    assert [each["pointer"] for each in body["errors"]] == ["/input/text", "/input/times"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"agent": "echo", "input": {"text": "x"}, "priorty": "high"}, "did you mean 'priority'"),
        (HELLO | {"priority": "urgent"}, "/priority"),
        (HELLO | {"queue": "high"}, "set priority instead"),
        (HELLO | {"countdown": -1}, "/countdown"),
        (HELLO | {"countdown": 5, "eta": "2026-01-01T00:00:00Z"}, "send one of them"),
        (HELLO | {"eta": "yesterday"}, "/eta"),
        (HELLO | {"eta": "0001-01-01T00:00:00+14:00"}, "1971"),
        (HELLO | {"task_id": "seventeen"}, "/task_id"),
        (HELLO | {"tenant": "a\u0000b"}, "/tenant"),
        (HELLO | {"idempotency_key": "a", "task_id": "x"}, "send one of them"),
        ([], "valid dictionary"),
        ("echo", "valid dictionary"),
    ],
)
async def test_a_body_that_is_wrong_is_told_what_would_be_right(api: Api, body: Any, said: str):
    """P10: 422 and the place."""
    found = assert_problem(await api.client.post(TASKS, json=body), 422, "invalid_request")

    assert said in found["detail"]


async def test_many_tasks_are_accepted_at_once(api: Api):
    """In the order of the request."""
    bodies = [{"agent": "echo", "input": {"text": str(n)}} for n in range(50)]

    answer = await api.client.post(f"{TASKS}/bulk", json=bodies)

    ids = [each["id"] for each in answer.json()["items"]]
    assert answer.status_code == 202
    assert [each["task_id"] for each in await _entries(api)] == ids
    assert [each["input"]["text"] for each in await _entries(api)] == [str(n) for n in range(50)]


async def test_of_many_tasks_all_or_none_are_accepted(api: Api):
    """The error names the one that is wrong."""
    bodies: list[Any] = [HELLO, HELLO | {"input": {"text": 7}}]

    body = assert_problem(await api.client.post(f"{TASKS}/bulk", json=bodies), 422, "invalid_input")

    assert body["errors"][0]["pointer"] == "/1/input/text"
    assert not await _entries(api)
    assert not await _rows(api, "SELECT id FROM tasks")


async def test_one_conflict_refuses_all(api: Api):
    """All or none, also where the record has the last word."""
    task_id = await api.submit()

    answer = await api.client.post(
        f"{TASKS}/bulk", json=[HELLO, {"agent": "echo", "input": {"text": "x"}, "task_id": task_id}]
    )

    assert_problem(answer, 409, "task_id_conflict")
    assert len(await _rows(api, "SELECT id FROM tasks")) == 1


async def test_with_durability_stream_the_audit_says_who_asked(api: Api):
    """The entry itself cannot."""
    task_id = await api.submit(durability="stream")

    acts = await _entries(api, api.parts.streams.keys.audit)
    assert [(each["action"], each["actor"], each["object_id"]) for each in acts] == [
        ("task.requested", api.actor, task_id)
    ]
    assert not await _rows(api, "SELECT id FROM tasks")
    assert len(await _entries(api)) == 1


async def test_a_task_is_read_with_its_result_and_attempts(api: Api):
    """As the recorder wrote them."""
    task_id = await api.submit()
    await _finish(api, task_id)
    await _rows(
        api,
        "INSERT INTO attempts (task_id, attempt, state) VALUES (:id, 1, 'crashed') RETURNING 1",
        id=task_id,
    )

    body = (await api.client.get(f"{TASKS}/{task_id}")).json()

    assert body["state"] == "succeeded"
    assert body["result"]["output"] == {"said": "hello"}
    assert [each["state"] for each in body["attempts"]] == ["crashed"]
    assert body["created_at"].endswith("Z")


async def test_a_task_that_does_not_exist_is_not_found(api: Api):
    """For each thing that one can do with a task."""
    nobody = f"{TASKS}/018f0000-0000-7000-8000-00000000dead"

    for answer in (
        await api.client.get(nobody),
        await api.client.post(f"{nobody}/cancel"),
        await api.client.post(f"{nobody}/retry"),
    ):
        assert_problem(answer, 404, "task_not_found")
    assert_problem(await api.client.get(f"{TASKS}/seventeen"), 422, "invalid_request")


async def test_a_queued_task_is_cancelled(api: Api):
    """Twice is once; the audit names the key."""
    task_id = await api.submit()

    first = await api.client.post(f"{TASKS}/{task_id}/cancel")
    again = await api.client.post(f"{TASKS}/{task_id}/cancel")

    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json() == again.json() == {"id": task_id, "state": "cancelled"}
    asked = await _rows(
        api, "SELECT actor FROM audit_events WHERE action = 'task.cancel_requested'"
    )
    assert [each.actor for each in asked] == [api.actor]


async def test_a_task_that_has_succeeded_cannot_be_cancelled(api: Api):
    """And the answer says how it stands."""
    task_id = await api.submit()
    await _finish(api, task_id)

    body = assert_problem(await api.client.post(f"{TASKS}/{task_id}/cancel"), 409, "task_ended")

    assert "succeeded" in body["detail"]


async def test_a_retry_is_a_new_task_of_the_same_content(api: Api):
    """It names the old one; the old one stays as it is."""
    old = await api.submit(queue="side", priority="low", metadata={"case": 7})
    assert_problem(await api.client.post(f"{TASKS}/{old}/retry"), 409, "task_not_ended")
    await api.client.post(f"{TASKS}/{old}/cancel")

    answer = await api.client.post(f"{TASKS}/{old}/retry")
    new = (await api.client.get(answer.headers["location"])).json()

    assert answer.status_code == 202
    assert new["id"] != old
    assert new["metadata"] == {"case": 7, "retry_of": old}
    assert (new["agent"], new["queue"], new["priority"]) == ("echo", "side", "low")
    assert new["input"] == {"text": "hello", "times": 1}


async def test_with_redis_away_tasks_are_accepted_all_the_same(
    settings: Settings, database: Database, keys: Any
):
    """P1: the row is what accepts, and the reconciler publishes."""
    nowhere = Streams("redis://127.0.0.1:1/0", keys)
    async with serving(settings, database, nowhere) as api:
        task_id = await api.submit()
        stream_only = await api.client.post(TASKS, json=HELLO | {"durability": "stream"})
        cancelled = await api.client.post(f"{TASKS}/{task_id}/cancel")

        rows = await _rows(api, "SELECT published_at FROM tasks")
    await nowhere.close()

    assert [each.published_at for each in rows] == [None]
    body = assert_problem(stream_only, 503, "unavailable")
    assert body["retryable"]
    assert int(stream_only.headers["retry-after"]) > 0
    assert "127.0.0.1" not in stream_only.text
    assert cancelled.status_code == 202


async def test_with_postgres_away_the_answer_is_503(
    settings: Settings, database: Database, streams: Streams
):
    """No false 202."""
    nowhere = Database("postgresql+asyncpg://nobody@127.0.0.1:1/nothing")
    async with serving(settings, database, streams) as api:
        await api.client.get(TASKS)  # the key is in the cache now
        engine, database.engine = database.engine, nowhere.engine
        sessions, database.sessions = database.sessions, nowhere.sessions
        try:
            answers = [await api.client.post(TASKS, json=HELLO), await api.client.get(TASKS)]
        finally:
            database.engine, database.sessions = engine, sessions
    await nowhere.close()

    for answer in answers:
        assert_problem(answer, 503, "unavailable")
        assert "retry-after" in answer.headers
        assert "nobody" not in answer.text


async def _finish(api: Api, task_id: str) -> None:
    await _rows(
        api,
        "UPDATE tasks SET state = 'succeeded', progress = 2147483647 WHERE id = :id RETURNING 1",
        id=task_id,
    )
    await _rows(
        api,
        "INSERT INTO results (task_id, agent, state, attempt, output) VALUES"
        " (:id, 'echo', 'succeeded', 1, '{\"said\": \"hello\"}') RETURNING 1",
        id=task_id,
    )
