"""What the pages of tasks and alerts say, and what their buttons do."""

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html import unescape

import pytest
from sqlalchemy import text

from orchestrator.db import glance, listing
from orchestrator.db.session import Database
from orchestrator.errors import TookTooLong
from orchestrator.settings import Settings
from orchestrator.streams.connection import Streams
from orchestrator.task import TaskState
from tests.dashboard.seed import Morning, morning, sow
from tests.dashboard.serving import SOME_ID, Dashboard, serving

PAYLOAD = "<img src=x onerror=alert(1)>\x1b[2J\u202ereversed"


@pytest.fixture
async def dashboard(
    settings: Settings, database: Database, streams: Streams
) -> AsyncIterator[Dashboard]:
    async with serving(settings, database, streams) as found:
        yield found


@pytest.fixture
async def seeded(dashboard: Dashboard) -> Dashboard:
    await sow(dashboard.parts.database, morning(datetime.now(UTC)))
    return dashboard


def _ids(page: str, noun: str = "task") -> list[str]:
    return re.findall(rf'id="{noun}-([0-9a-f-]{{36}})"', page)


async def test_paging_through_tasks_gives_each_once(seeded: Dashboard):
    """By keyset: the links lead through all of them, the newest first, and then end."""
    ada = await seeded.person()
    seen: list[str] = []
    path: str | None = "/tasks?window=all"
    while path:
        page = (await ada.get(path)).text
        seen += _ids(page)
        found = re.search(r'rel="next" href="([^"]+)"', page)
        path = unescape(found.group(1)) if found else None

    async with seeded.parts.database.transaction() as connection:
        rows = await connection.execute(
            text("SELECT id FROM tasks ORDER BY created_at DESC, id DESC")
        )
        assert seen == [str(row.id) for row in rows]


async def test_filters_stand_in_the_address(seeded: Dashboard):
    """Every link of the page keeps the others; counts say what a click will show."""
    ada = await seeded.person()
    page = (await ada.get("/tasks?state=failed&agent=triage&window=7d")).text

    assert _ids(page)
    assert set(re.findall(r'<span class="state (\w+)">', page.split("<tbody>")[1])) == {"failed"}
    assert "/tasks?state=failed&amp;window=7d" not in page
    counted = re.search(r'failed</span><span class="count">(\d+)<', page.replace("\n", ""))
    assert counted is not None
    assert int(counted.group(1)) == len(_ids(page))
    assert "/tasks?agent=triage&amp;window=7d" in page
    empty = (await ada.get("/tasks?state=dead&queue=&agent=")).text
    assert "No such tasks in the last 24 hours" in empty


async def test_a_wrong_address_says_what_would_be_right(dashboard: Dashboard):
    """And shows no list as if it were the answer."""
    ada = await dashboard.person()
    for path, said in (
        ("/tasks?state=faild", "cannot be read"),
        ("/tasks?stat=failed", "did you mean"),
        ("/tasks?cursor=x", "cursor"),
        ("/tasks?window=all&cursor=eyJ4", "cursor"),
        ("/alerts?severity=severe", "cannot be read"),
        ("/alerts/news?newest=x", "cursor"),
        ("/tasks/no-uuid", "cannot be read"),
    ):
        answer = await ada.get(path)
        assert answer.status_code in {400, 422}, path
        assert said in unescape(answer.text)
        assert "<table" not in answer.text


async def test_new_tasks_are_counted_and_unfinished_rows_renewed(dashboard: Dashboard):
    """Without a row moving: what is new waits to be asked for."""
    ada, of = await dashboard.person(), Morning(datetime.now(UTC))
    row = of.task("echo", TaskState.RUNNING, of.ago(minutes=1), {"text": "a"})
    await sow(dashboard.parts.database, of.rows)
    page = (await ada.get("/tasks")).text
    news = unescape(re.search(r'hx-get="([^"]+/news[^"]+)"', page).group(1))
    assert "new task" not in (await ada.get(news)).text

    later = Morning(datetime.now(UTC))
    later._count = 1000
    later.task("echo", TaskState.SUCCEEDED, later.now, {"text": "b"})
    await sow(dashboard.parts.database, later.rows)
    async with dashboard.parts.database.transaction() as connection:
        await connection.execute(text("UPDATE tasks SET state = 'failed' WHERE agent = 'echo'"))

    part = (await ada.get(news)).text
    assert "1 new task: show" in part
    assert _ids(part) == [row.id]
    assert 'hx-swap-oob="true"' in part
    assert "state failed" in part


async def test_one_task_in_full(seeded: Dashboard):
    """Facts, error, attempts, input; events for whoever may read the audit."""
    ada, bob = await seeded.person(), await seeded.person(["tasks:read"])
    (task,) = (await listing.tasks(seeded.parts.database, state="failed", limit=1)).rows
    page = (await ada.get(f"/tasks/{task.id}")).text

    assert "TimeoutError" in page or "ConnectionRefusedError" in page
    assert "Attempt 3" in page
    assert "task.failed" in page
    assert "Retry this task?" in page
    assert "/alerts/" in page
    other = (await bob.get(f"/tasks/{task.id}")).text
    assert "audit:read" in other
    assert "task.failed" not in other
    assert "Retry this task?" not in other
    missing = await ada.get(f"/tasks/{SOME_ID}")
    assert missing.status_code == 404
    assert f"No task {SOME_ID}" in missing.text


async def test_cancel_and_retry(dashboard: Dashboard):
    """By the buttons of the page; each is in the audit under the key that signed in."""
    ada = await dashboard.person()
    task = dashboard.parts.registry.get("echo").task({"text": "hi"})
    await dashboard.parts.submitter.submit_many([task], actor="test")
    page = (await ada.get(f"/tasks/{task.task_id}")).text
    assert "Cancel this task?" in page

    answer = await ada.send(f"/tasks/{task.task_id}/cancel")
    assert answer.headers["location"] == f"/tasks/{task.task_id}"
    async with dashboard.parts.database.transaction() as connection:
        asked = await connection.execute(
            text("SELECT actor FROM audit_events WHERE action LIKE 'task.cancel%'")
        )
        assert {row.actor for row in asked} == {f"key:{ada.key_id}"}

    again = await ada.send(f"/tasks/{task.task_id}/retry")
    assert again.status_code == 303, again.text
    new = again.headers["location"].removeprefix("/tasks/")
    found = await listing.task(dashboard.parts.database, new)
    assert found is not None
    assert found.task.meta == {"retry_of": task.task_id}
    assert f'href="/tasks/{task.task_id}"' in (await ada.get(f"/tasks/{new}")).text
    refused = await ada.send(f"/tasks/{new}/retry")
    assert refused.status_code == 409
    assert "cancel it, or wait for its end" in refused.text


async def test_a_list_that_takes_too_long_is_narrowed(seeded: Dashboard, monkeypatch):
    """To the last day, and says so."""
    ada, real = await seeded.person(), listing.tasks

    async def slow(database, *, since=None, **wanted):
        if since is None or since < datetime.now(UTC) - timedelta(days=2):
            async with database.transaction() as connection:
                await connection.execute(text("SELECT pg_sleep(10)"))
        return await real(database, since=since, **wanted)

    monkeypatch.setattr(listing, "tasks", slow)
    page = await ada.get("/tasks?window=all")

    assert page.status_code == 200
    assert "of the last 24 hours" in page.text
    assert _ids(page.text)


async def test_no_page_waits_longer_than_two_seconds(dashboard: Dashboard):
    """Its statement is given up by Postgres itself."""
    with pytest.raises(TookTooLong):
        async with dashboard.reading.transaction() as connection:
            await connection.execute(text("SELECT pg_sleep(10)"))


async def test_alerts_and_who_sees_to_them(seeded: Dashboard):
    """Acknowledged by a button, in place; taken back on its own page."""
    ada = await seeded.person()
    page = (await ada.get("/alerts?acknowledged=no&severity=high")).text
    alert_id = _ids(page, "alert")[0]

    part = await ada.send("/alerts/acknowledge", {"HX-Request": "true"}, id=alert_id)
    assert part.status_code == 200
    assert _ids(part.text, "alert") == [alert_id]
    assert f'title="key:{ada.key_id}"' in part.text
    assert alert_id not in _ids((await ada.get("/alerts?acknowledged=no")).text, "alert")
    detail = (await ada.get(f"/alerts/{alert_id}")).text
    assert "Take back the acknowledgement" in detail
    assert "Tasks it became" in detail
    assert _ids(detail)

    back = await ada.send("/alerts/unacknowledge", id=alert_id, back=f"/alerts/{alert_id}")
    assert back.headers["location"] == f"/alerts/{alert_id}"
    assert "Nobody has acknowledged it" in (await ada.get(f"/alerts/{alert_id}")).text
    away = await ada.send("/alerts/acknowledge", id=alert_id, back="//evil.example")
    assert away.headers["location"] == "/"


async def test_an_alert_names_the_stories_it_is_part_of(seeded: Dashboard):
    """With their tasks, and a way to their other alerts."""
    ada = await seeded.person()
    alert_id, other = _ids((await ada.get("/alerts")).text, "alert")[:2]
    task_id = _ids((await ada.get("/tasks?state=running")).text)[0]
    story = "018f2a00-0000-7000-8000-00000000000b"
    async with seeded.parts.database.transaction() as connection:
        await connection.execute(text("UPDATE alerts SET task_ids = '{}'"))
        await connection.execute(
            text(
                "INSERT INTO investigations (id, rule, key, agent, severity, alerts,"
                " first_alert_at, last_alert_at, open_until, task_ids)"
                " VALUES (:id, 'one_machine', '<b>10.0.0.9', 'triage', 'high', 1, now(), now(),"
                " now(), ARRAY[:task])"
            ),
            {"id": story, "task": task_id},
        )
        await connection.execute(
            text("INSERT INTO investigation_alerts VALUES (:alert, 'one_machine', :id)"),
            {"alert": alert_id, "id": story},
        )

    page = (await ada.get(f"/alerts/{alert_id}")).text
    assert "one_machine: &lt;b&gt;10.0.0.9" in page
    assert _ids(page) == [task_id]
    assert "no rule takes alerts like this one" in (await ada.get(f"/alerts/{other}")).text
    (link,) = re.findall(r'href="(/alerts\?[^"]*investigation_id[^"]*)"', page)
    assert _ids((await ada.get(unescape(link))).text, "alert") == [alert_id]


async def test_alerts_that_come_later_are_told(seeded: Dashboard):
    """Only those that fit the filters; also one that is stored after others that came later."""
    ada = await seeded.person()
    page = (await ada.get("/alerts?severity=high")).text
    news = unescape(re.search(r'data-news="([^"]+)"', page).group(1))
    newest = re.search(r'data-newest="([^"]+)"', page).group(1)
    before = _ids((await ada.get(f"{news}&newest={newest}")).text, "alert")
    assert set(before) <= set(_ids(page, "alert"))

    async with seeded.parts.database.transaction() as connection:
        await connection.execute(text("UPDATE alerts SET received_at = now() WHERE kind = 'cps'"))
    first = await ada.get(f"{news}&newest={newest}")
    assert len(set(_ids(first.text, "alert")) - set(before)) == 3
    newest = first.headers["x-newest"]
    late, *_ = told = _ids(first.text, "alert")
    async with seeded.parts.database.transaction() as connection:
        await connection.execute(
            text(
                "UPDATE alerts SET received_at = received_at - interval '20 s',"
                " id = '018f2a00-0000-7000-8000-000000000009' WHERE id = :id"
            ),
            {"id": late},
        )
    second = await ada.get(f"{news}&newest={newest}")
    # What the page has already it leaves out by itself.
    assert set(_ids(second.text, "alert")) - set(told) == {"018f2a00-0000-7000-8000-000000000009"}
    assert second.headers["x-newest"] == newest


async def test_the_overview_says_what_needs_somebody(seeded: Dashboard):
    """Each line leads to the filter that made it; a key sees what its scopes let it see."""
    ada, bob = await seeded.person(), await seeded.person(["tasks:read"])
    page = unescape((await ada.get("/")).text)

    assert "Degraded." in page
    assert "Queue enrichment is" in page
    assert "AURORA_QUEUES=enrichment aurora worker" in page
    assert 'href="/tasks?state=failed&agent=triage"' in page
    assert 'href="/alerts?severity=critical&acknowledged=no"' in page
    assert "3 dead letters: malformed" in page
    other = (await bob.get("/")).text
    assert "dead letters: malformed" not in other
    assert "nobody has acknowledged" not in other
    assert ">Alerts<" not in other


async def test_without_redis_pages_still_show(dashboard: Dashboard, monkeypatch):
    """And the first one says what is missing, with what to type."""
    ada = await dashboard.person()
    gone = Streams("redis://127.0.0.1:1/0", dashboard.parts.streams.keys)
    monkeypatch.setattr(dashboard.site.pages.state.lookout, "_parts", _with(dashboard, gone))

    page = (await ada.get("/")).text
    assert "Not working." in page
    assert "Redis does not answer" in page
    assert (await ada.get("/tasks")).status_code == 200
    await gone.close()


async def test_what_others_said_is_text(dashboard: Dashboard):
    """Markup is escaped, and what cannot be seen is named, wherever it stands."""
    ada, of = await dashboard.person(), Morning(datetime.now(UTC))
    row = of.task(
        "anything", TaskState.FAILED, of.now, {"text": PAYLOAD, PAYLOAD: PAYLOAD}, attempt=2,
        error={"type": PAYLOAD, "message": PAYLOAD}, output={"a": PAYLOAD},
        idempotency_key=PAYLOAD, meta={"alert_id": "javascript:alert(1)"},
    )  # fmt: skip
    await sow(dashboard.parts.database, of.rows)

    for path in ("/", "/tasks", f"/tasks/{row.id}"):
        page = (await ada.get(path)).text
        assert "<img" not in page.split("<main")[1]
        assert "&lt;img src=x onerror=alert(1)&gt;" in page, path
        assert "\x1b" not in page
        assert "\u202e" not in page
        assert "javascript:" not in page or 'href="javascript' not in page


def _with(dashboard: Dashboard, streams: Streams):
    return replace(dashboard.parts, streams=streams)


async def test_counts_end_at_their_bound(seeded: Dashboard):
    """Each state as the rows have it, however small the bound; of the great majority, too."""
    async with seeded.parts.database.transaction() as connection:
        rows = await connection.execute(text("SELECT state, count(*) FROM tasks GROUP BY 1"))
        real = {state: int(count) for state, count in rows}
    for most in (1, 5, 16, 40, 200, 1000):
        counted = await glance.tasks_by_state(seeded.reading, most=most)
        expected = {state: min(real.get(state.value, 0), most + 1) for state in TaskState}
        assert counted == expected, most
