"""The pages of agents: how each did, and a form that starts a task as the API would."""

import re
import shlex
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from redis.exceptions import ResponseError
from sqlalchemy import text

from orchestrator.db import listing
from orchestrator.db.session import Database
from orchestrator.settings import Settings
from orchestrator.streams.connection import Streams
from orchestrator.streams.names import ORCHESTRATOR
from orchestrator.task import Priority, new_id
from tests.dashboard.serving import Dashboard, Person, serving

HOSTILE = "'; rm -rf / #<script>alert(1)</script>\u202e"
# What is typed, the field that it is about, what is said of it.
WRONG: tuple[tuple[dict[str, str], str, str], ...] = (
    ({}, "/text", "Field required"),
    ({"/text": "x" * 101}, "/text", "at most 100 characters"),
    ({"/text": "x", "/times": "many"}, "/times", "valid integer"),
    ({"/text": "x", "priority": "urgent"}, "priority", "&#39;high&#39;"),
    ({"/text": "x", "countdown": "soon"}, "countdown", "valid number"),
    ({"mode": "json", "input": "{"}, "input", "Not JSON that we take"),
    ({"mode": "json", "input": "[]"}, "input", "A JSON object is needed"),
    ({"mode": "json", "input": "{}"}, "input", "/text: Field required"),
)


@pytest.fixture
async def dashboard(
    settings: Settings, database: Database, streams: Streams
) -> AsyncIterator[Dashboard]:
    async with serving(settings, database, streams) as found:
        yield found


async def _start(person: Person, agent: str = "echo", **fields: str) -> Any:
    return await person.send(f"/agents/{agent}", **({"task_id": new_id()} | fields))


async def _ran(dashboard: Dashboard, state: str, seconds: int, *, count: int = 1) -> None:
    async with dashboard.parts.database.transaction() as connection:
        await connection.execute(
            text(
                "INSERT INTO tasks (id, agent, state, progress, created_at, published_at,"
                " started_at, finished_at) SELECT gen_random_uuid(), 'echo', :state, 1,"
                " now() - interval '1 hour', now(), now() - interval '1 hour',"
                " now() - interval '1 hour' + :seconds * interval '1 second'"
                " FROM generate_series(1, :count)"
            ),
            {"state": state, "seconds": seconds, "count": count},
        )


async def test_agents_are_listed_with_how_they_did(dashboard: Dashboard):
    """Of the last day; and whether anybody works for their queue."""
    ada = await dashboard.person()
    await _ran(dashboard, "succeeded", 2, count=90)
    await _ran(dashboard, "succeeded", 8, count=9)
    await _ran(dashboard, "failed", 70, count=1)

    page = (await ada.get("/agents")).text

    assert "99.0 %" in page
    assert "2.0 s" in page
    assert "8.0 s" in page
    assert "Say it again." in page


async def test_a_queue_that_nobody_reads_is_named(dashboard: Dashboard):
    """Where something waits; with what to type."""
    ada = await dashboard.person()
    streams = dashboard.parts.streams
    quiet = (await ada.get("/agents")).text
    await _start(ada, "anything", mode="json", input="{}")
    waiting = (await ada.get("/agents")).text
    alone = (await ada.get("/agents/anything")).text

    # As a worker reads.
    lane = streams.keys.lane("side", Priority.NORMAL)
    with suppress(ResponseError):
        await streams.commands.xgroup_create(lane, ORCHESTRATOR, id="0", mkstream=True)
    assert await streams.commands.xreadgroup(ORCHESTRATOR, "w", {lane: ">"}, count=1)
    read = (await ada.get("/agents")).text

    assert quiet.count("nothing waits") == 2
    assert (waiting.count("no worker"), waiting.count("nothing waits")) == (1, 1)
    assert "AURORA_QUEUES=side aurora worker" in alone
    assert (read.count("no worker"), read.count("at work")) == (0, 1)


async def test_a_task_is_started_from_the_form(dashboard: Dashboard):
    """In the name of the person, and once however often the form is sent."""
    ada = await dashboard.person()
    form = {"/text": HOSTILE, "/times": "2", "priority": "high", "task_id": new_id()}

    answer = await _start(ada, **form)
    again = await _start(ada, **form)
    other = await _start(ada, **(form | {"/times": "3"}))

    task_id = answer.headers["location"].removeprefix("/tasks/")
    found = await listing.task(dashboard.parts.database, task_id)
    assert found is not None
    assert answer.status_code == 303
    assert again.headers["location"] == answer.headers["location"]
    assert (found.task.input, found.task.priority) == ({"text": HOSTILE, "times": 2}, "high")
    audit = await listing.audit(dashboard.parts.database, object_id=task_id)
    assert [each.actor for each in audit.rows] == [f"key:{ada.key_id}"]
    assert other.status_code == 422
    assert "send it again to start another one" in other.text
    assert task_id not in re.findall(r'name="task_id" value="([^"]+)"', other.text)


async def test_what_is_wrong_stands_beside_its_field(dashboard: Dashboard):
    """And nothing is started."""
    ada = await dashboard.person()
    for fields, at, right in WRONG:
        answer = await _start(ada, **fields)

        assert answer.status_code == 422
        (said,) = re.findall(rf'<span id="{at}-wrong"[^>]*>([^<]*)</span>', answer.text)
        assert right in said
        assert f'aria-describedby="{at}-wrong"' in answer.text
    assert (await listing.tasks(dashboard.parts.database)).rows == []


async def test_what_was_typed_is_shown_as_code(dashboard: Dashboard):
    """For a shell and for Python, quoted so that it says what was typed and no more."""
    ada = await dashboard.person()

    page = (await _start(ada, **{"/text": HOSTILE, "do": "show"})).text

    assert "<script>" not in page.replace('<script src="', "")
    assert "⟨U+202E⟩" in page
    command = re.findall(r'<pre[^>]*aria-label="Command line">([^<]*)</pre>', page)[0]
    command = command.replace("&#39;", "'").replace("&#34;", '"').replace("&lt;", "<")
    words = shlex.split(command.replace("&gt;", ">"))
    assert words[:3] == ["aurora", "run", "echo"]
    assert len(words) == 4
    assert (await listing.tasks(dashboard.parts.database)).rows == []


async def test_an_agent_that_takes_any_object_is_given_json(dashboard: Dashboard):
    """It has no properties to make fields from."""
    ada = await dashboard.person()

    page = (await ada.get("/agents/anything")).text
    answer = await _start(ada, "anything", mode="json", input='{"a": [1, null]}')

    assert 'name="input"' in page
    assert answer.status_code == 303
    (row,) = (await listing.tasks(dashboard.parts.database)).rows
    assert row.queue == "side"


async def test_only_who_may_starts_a_task(dashboard: Dashboard):
    """Without the scope there is no form, and it is refused; so is another site's."""
    reader = await dashboard.person(["agents:read"])
    writer = await dashboard.person(["agents:read", "tasks:write"])
    stranger = await dashboard.person(["tasks:read"])
    fields = {"task_id": new_id(), "/text": "x"}

    assert 'action="/agents/echo"' in (await writer.get("/agents/echo")).text
    assert 'action="/agents/echo"' not in (await reader.get("/agents/echo")).text
    for page in ("/agents", "/agents/echo"):
        assert (await stranger.get(page)).status_code == 403
    assert (await reader.send("/agents/echo", **fields)).status_code == 403
    assert (await writer.client.post("/agents/echo", data=fields)).status_code == 403
    elsewhere = {"Sec-Fetch-Site": "cross-site"}
    answer = await writer.client.post("/agents/echo", data=fields, headers=elsewhere)
    assert answer.status_code == 403
    assert (await writer.get("/agents/ecko")).status_code == 404
    assert (await writer.send("/agents/ecko", **fields)).status_code == 404
    assert (await listing.tasks(dashboard.parts.database)).rows == []
