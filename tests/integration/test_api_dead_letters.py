"""Dead letters over HTTP: read, redriven once and losing nothing, dropped."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import text

from orchestrator.db import letters
from orchestrator.db.session import Database
from orchestrator.errors import Unavailable
from orchestrator.settings import Settings
from orchestrator.streams.connection import Streams
from orchestrator.task import new_id
from tests.api import Api, assert_problem, serving
from tests.support import wait_until

LETTERS = "/api/v1/dead-letters"
HELLO = {"agent": "echo", "input": {"text": "hello"}, "idempotency_key": "k", "attempt": 3}


@pytest.fixture
async def api(settings: Settings, database: Database, streams: Streams) -> AsyncIterator[Api]:
    async with serving(settings, database, streams) as found:
        yield found


async def _letter(api: Api, *, stream: str | None = None, data: Any = HELLO, **fields: str) -> str:
    letter_id = new_id()
    async with api.parts.database.transaction() as connection:
        await connection.execute(
            text(
                "INSERT INTO dead_letters (id, stream, entry_id, reason, detail, fields) VALUES"
                " (:id, :stream, :entry, 'unknown_agent', 'no such agent', CAST(:fields AS jsonb))"
            ),
            {
                "id": letter_id,
                "stream": stream or api.parts.streams.keys.tasks,
                "entry": f"1700000000000-{int(letter_id[-6:], 16)}",
                "fields": json.dumps(
                    {"data": data if isinstance(data, str) else json.dumps(data), **fields}
                ),
            },
        )
    return letter_id


async def _scalar(api: Api, sql: str) -> Any:
    async with api.parts.database.transaction() as connection:
        return await connection.scalar(text(sql))


async def _entries(api: Api, key: str) -> list[tuple[str, Any]]:
    found = await api.parts.streams.commands.xrange(key)
    return [(fields[b"id"].decode(), json.loads(fields[b"data"])) for _, fields in found]


async def _audit(api: Api, object_id: str) -> list[tuple[str, str]]:
    found = await api.client.get("/api/v1/audit", params={"object_id": object_id})
    return [(each["action"], each["actor"]) for each in found.json()["items"]]


async def test_a_task_is_redriven_as_a_new_task_on_its_lane(api: Api):
    """First attempt, an id of its own; and the letter says which."""
    lane = f"{api.parts.streams.keys.tasks}:side:high"
    letter_id = await _letter(api, stream=lane)

    answer = await api.client.post(f"{LETTERS}/{letter_id}/redrive")

    body = answer.json()
    assert answer.status_code == 200, body
    assert (body["closed_as"], body["closed_by"]) == ("redriven", api.actor)
    task_id = body["redriven_task_id"]
    ((_, data),) = await _entries(api, lane)
    assert data == {
        "task_id": task_id, "agent": "echo", "input": {"text": "hello"}, "queue": "side",
        "priority": "high", "metadata": {"redrive_of": letter_id},
    }  # fmt: skip
    assert await _audit(api, task_id) == [("task.queued", api.actor)]
    task = (await api.client.get(f"/api/v1/tasks/{task_id}")).json()
    assert (task["state"], task["queue"], task["priority"]) == ("queued", "side", "high")
    assert await _audit(api, letter_id) == [("dead_letter.redriven", api.actor)]


async def test_a_letter_is_redriven_once(api: Api):
    """Two who do it at the same time make one task."""
    letter_id = await _letter(api)

    answers = await asyncio.gather(
        *(api.client.post(f"{LETTERS}/{letter_id}/redrive") for _ in range(4))
    )

    assert sorted(each.status_code for each in answers) == [200, 409, 409, 409]
    for each in answers:
        if each.status_code == 409:
            assert (
                "was redriven by key:" in assert_problem(each, 409, "dead_letter_closed")["detail"]
            )
    assert len(await _entries(api, api.parts.streams.keys.tasks)) == 1


async def test_a_second_redrive_waits_for_the_first_and_says_nothing(api: Api):
    """The row's lock, while the first is between saying the message and closing the letter."""
    letter_id, database = await _letter(api), api.parts.database
    said, go = [], asyncio.Event()

    async def again(row: Any) -> None:
        said.append(row.id)
        await go.wait()

    async def waiting() -> Any:
        return len(said) > 1 or await _scalar(
            api,
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND datname = current_database()",
        )

    calls = [
        asyncio.create_task(letters.redrive(database, letter_id, actor="x", again=again))
        for _ in range(2)
    ]
    await wait_until(waiting, what="the second redrive at the lock")
    go.set()
    ends = await asyncio.gather(*calls, return_exceptions=True)

    assert said == [letter_id]
    assert [type(each).__name__ for each in ends if isinstance(each, Exception)] == ["LetterClosed"]


async def test_a_crash_before_the_commit_leaves_the_letter_and_no_task(
    api: Api, monkeypatch: pytest.MonkeyPatch
):
    """Both happen or neither; the next redrive makes the one task."""
    letter_id = await _letter(api)
    close = letters._close

    async def dies(*_: Any, **__: Any) -> None:
        raise Unavailable("Postgres", "gone before the commit")

    monkeypatch.setattr(letters, "_close", dies)
    assert_problem(await api.client.post(f"{LETTERS}/{letter_id}/redrive"), 503)
    assert not (await api.client.get("/api/v1/tasks")).json()["items"]
    monkeypatch.setattr(letters, "_close", close)
    again = await api.client.post(f"{LETTERS}/{letter_id}/redrive")

    assert again.json()["redriven_task_id"] == letters.redriven_id(letter_id)
    tasks = (await api.client.get("/api/v1/tasks")).json()["items"]
    assert [each["id"] for each in tasks] == [letters.redriven_id(letter_id)]


async def test_a_message_that_cannot_be_read_is_not_redriven(api: Api):
    """409 with the reason; the letter stays open."""
    for data in ("{not json", "[]", {"input": {}}, {"agent": "echo", "input": 7}):
        letter_id = await _letter(api, data=data)

        answer = await api.client.post(f"{LETTERS}/{letter_id}/redrive")

        assert_problem(answer, 409, "not_redrivable")
        assert (await api.client.get(f"{LETTERS}/{letter_id}")).json()["closed_at"] is None
    assert not await _entries(api, api.parts.streams.keys.tasks)


async def test_an_alert_is_redriven_as_it_was(api: Api):
    """With its id, so that it stays one alert."""
    key, alert_id = f"{api.parts.streams.keys.prefix}:alerts", new_id()
    letter_id = await _letter(api, stream=key, data={"signature": "x", "severity": 1}, id=alert_id)

    body = (await api.client.post(f"{LETTERS}/{letter_id}/redrive")).json()

    assert body["redriven_task_id"] is None
    assert await _entries(api, key) == [(alert_id, {"signature": "x", "severity": 1})]


async def test_with_redis_away_an_alert_waits_and_a_task_is_accepted(
    settings: Settings, database: Database, keys: Any
):
    """Nothing is closed that was not said again; a task's row is enough."""
    nowhere = Streams("redis://127.0.0.1:1/0", keys)
    async with serving(settings, database, nowhere) as api:
        alert = await _letter(api, stream=f"{keys.prefix}:alerts", data={"signature": "x"})
        task = await _letter(api)

        assert_problem(await api.client.post(f"{LETTERS}/{alert}/redrive"), 503, "unavailable")
        redriven = await api.client.post(f"{LETTERS}/{task}/redrive")

        assert (await api.client.get(f"{LETTERS}/{alert}")).json()["closed_at"] is None
        assert redriven.status_code == 200
    await nowhere.close()


async def test_a_dropped_letter_stays_readable_and_closed(api: Api):
    """The message is evidence."""
    letter_id = await _letter(api)

    dropped = await api.client.post(f"{LETTERS}/{letter_id}/drop")

    assert (dropped.json()["closed_as"], dropped.json()["closed_by"]) == ("dropped", api.actor)
    assert (
        json.loads((await api.client.get(f"{LETTERS}/{letter_id}")).json()["fields"]["data"])
        == HELLO
    )
    assert_problem(await api.client.post(f"{LETTERS}/{letter_id}/drop"), 409, "dead_letter_closed")
    assert_problem(await api.client.post(f"{LETTERS}/{letter_id}/redrive"), 409)
    assert await _audit(api, letter_id) == [("dead_letter.dropped", api.actor)]


async def test_letters_are_listed_open_or_closed(api: Api):
    """Without their fields, which may be large."""
    first, second = await _letter(api), await _letter(api)
    await api.client.post(f"{LETTERS}/{first}/drop")

    for params, expected in (
        ({}, [second, first]),
        ({"open": "true"}, [second]),
        ({"open": "false"}, [first]),
        ({"reason": "malformed"}, []),
    ):
        items = (await api.client.get(LETTERS, params=params)).json()["items"]
        assert [each["id"] for each in items] == expected
    assert_problem(await api.client.get(f"{LETTERS}/{new_id()}"), 404, "dead_letter_not_found")
    assert_problem(await api.client.post(f"{LETTERS}/{new_id()}/drop"), 404)
