"""The page of the audit trail: found by what is asked, as text, and each look written down."""

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orchestrator.db import listing
from orchestrator.db.recording import write_audit
from orchestrator.db.session import Database
from orchestrator.errors import TookTooLong
from orchestrator.record import AuditEntry
from orchestrator.settings import Settings
from orchestrator.streams.connection import Streams
from orchestrator.task import new_id
from tests.dashboard.serving import Dashboard, Person, serving

HOSTILE = "<script>alert(1)</script>\u202e"
NOW = datetime.now(UTC)
OTHERS = {"audit", "key", "session"}


@pytest.fixture
async def dashboard(
    settings: Settings, database: Database, streams: Streams
) -> AsyncIterator[Dashboard]:
    async with serving(settings, database, streams) as found:
        yield found


async def _act(dashboard: Dashboard, action: str, **values: Any) -> str:
    said = {
        "id": new_id(), "at": NOW - timedelta(minutes=1), "action": action, "actor": "key:ak_1",
        "object_type": action.partition(".")[0], "object_id": new_id(),
    }  # fmt: skip
    entry = AuditEntry(**(said | values))
    async with dashboard.parts.database.transaction() as connection:
        await write_audit(connection, [entry])
    return str(entry.object_id)


async def _shown(person: Person, query: str = "") -> list[str]:
    """The acts of a page, without those of signing in and looking."""
    page = (await person.get(f"/audit{query}")).text
    found = re.findall(r'data-label="What"><span class="data">([^<]+)</span>', page)
    return [each for each in found if each.partition(".")[0] not in OTHERS]


async def test_the_trail_is_found_by_what_is_asked(dashboard: Dashboard):
    """All of it stands in the address."""
    ada = await dashboard.person()
    one = await _act(dashboard, "schedule.paused", detail={"reason": "night shift"})
    await _act(dashboard, "schedule.resumed", actor="scheduler:a")
    await _act(dashboard, "task.queued", at=NOW - timedelta(hours=3))
    await _act(dashboard, "task.queued", at=NOW - timedelta(days=3))

    assert await _shown(ada) == ["schedule.resumed", "schedule.paused", "task.queued"]
    assert await _shown(ada, "?action=schedule.*") == ["schedule.resumed", "schedule.paused"]
    assert await _shown(ada, "?actor=scheduler:a") == ["schedule.resumed"]
    assert await _shown(ada, "?object_type=task&window=1h") == []
    assert await _shown(ada, "?object_type=task&window=7d") == ["task.queued"] * 2
    assert await _shown(ada, f"?object_id={one}") == ["schedule.paused"]
    assert await _shown(ada, "?contains=NIGHT") == ["schedule.paused"]
    assert await _shown(ada, "?contains=night&action=task.*") == []
    assert "No act fits" in (await ada.get("/audit?object_type=nothing")).text
    assert (await ada.get("/audit?objekt=task")).status_code == 400


async def test_a_text_is_not_searched_for_in_all_time(dashboard: Dashboard):
    """It would read the whole trail; the page says what would be right."""
    ada = await dashboard.person()
    answer = await ada.get("/audit?contains=night&window=all")
    assert answer.status_code == 422
    assert "choose the last 30 days or less" in answer.text


async def test_a_search_that_takes_too_long_is_narrowed(
    dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch
):
    """To the last day, and says so."""
    ada, real = await dashboard.person(), listing.audit

    async def slow(database: Database, *, since: datetime | None = None, **wanted: Any) -> Any:
        if since is None or since < datetime.now(UTC) - timedelta(days=2):
            raise TookTooLong("Postgres", "the statement took too long and was given up")
        return await real(database, since=since, **wanted)

    await _act(dashboard, "schedule.paused", detail={"reason": "night shift"})
    monkeypatch.setattr(listing, "audit", slow)

    assert await _shown(ada, "?contains=night&window=30d") == ["schedule.paused"]
    assert "of the last 24 hours" in (await ada.get("/audit?contains=night&window=30d")).text


async def test_what_was_before_stands_beside_what_is_now(dashboard: Dashboard):
    """Of what is not the same in both; as text, whoever said it."""
    ada = await dashboard.person()
    task_id = await _act(
        dashboard,
        "schedule.updated",
        before={"expression": "0 6 * * *", "agent": "echo", "input": {"text": HOSTILE}},
        after={"expression": "0 7 * * *", "agent": "echo", "input": None},
        detail={HOSTILE: HOSTILE},
        actor=HOSTILE,
    )

    page = (await ada.get("/audit?object_type=schedule")).text

    sides = page.partition('class="sides"')[2].partition("</table>")[0]
    names = re.findall(r'<th scope="row" class="mono">([^<]+)', sides)
    assert sorted(names) == ["expression", "input"]
    assert sides.index("0 6 * * *") < sides.index("0 7 * * *")
    assert f'href="/schedules/{task_id}"' in page
    assert "<script>alert" not in page
    assert "\u202e" not in page
    assert "⟨U+202E⟩" in page


async def test_an_object_that_has_no_page_is_no_link(dashboard: Dashboard):
    """Nor one whose id is none, nor one that this key may not open."""
    ada = await dashboard.person()
    auditor = await dashboard.person(["audit:read"])
    await _act(dashboard, "task.queued", object_id="../sign-out")
    task_id = await _act(dashboard, "task.queued")

    links = re.findall(r'href="(/tasks[^"]*)"', (await ada.get("/audit")).text)
    assert set(links) == {"/tasks", f"/tasks/{task_id}"}
    assert f'href="/tasks/{task_id}"' not in (await auditor.get("/audit")).text


async def test_pages_hold_every_act_once(dashboard: Dashboard):
    """Although each look adds one."""
    ada = await dashboard.person()
    ids = {await _act(dashboard, "task.queued") for _ in range(120)}
    found: list[str] = []
    path = "/audit?object_type=task"
    while path:
        page = (await ada.get(path)).text
        found += re.findall(r'href="/tasks/([0-9a-f-]{36})"', page)
        older = re.findall(r'rel="next" href="([^"]+)"', page)
        path = older[0].replace("&amp;", "&") if older else ""

    assert len(found) == 120
    assert set(found) == ids


async def test_each_look_is_written_down_and_none_is_made_by_itself(dashboard: Dashboard):
    """With who looked and for what; the page asks for nothing while it is open."""
    ada = await dashboard.person()

    page = (await ada.get("/audit?action=key.*&contains=ak_")).text

    assert "itself written down" in page
    assert "data-live" not in page
    assert "hx-get" not in page
    (look,) = (await listing.audit(dashboard.parts.database, action="audit.read")).rows
    assert look.actor == f"key:{ada.key_id}"
    assert look.detail is not None
    assert look.detail["filters"]["contains"] == "ak_"


async def test_only_who_may_reads_the_trail(dashboard: Dashboard):
    """Not even that there is one."""
    stranger = await dashboard.person(["tasks:read", "dead:write"])
    answer = await stranger.get("/audit")
    assert answer.status_code == 403
    assert 'href="/audit"' not in answer.text
