"""The pages of dead letters: by cause, one by one, closed one at a time or a group at once."""

import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from orchestrator.dashboard.closing import Closed, close_all
from orchestrator.dashboard.pages import dead_letters
from orchestrator.dashboard.reasons import REASONS
from orchestrator.db import listing
from orchestrator.db.bulk import json_text
from orchestrator.db.session import Database
from orchestrator.errors import DeadReason, Unavailable
from orchestrator.settings import Settings
from orchestrator.streams.connection import Streams
from orchestrator.task import new_id
from tests.dashboard.serving import Dashboard, Person, serving

HELLO = {"agent": "echo", "input": {"text": "hello"}}
HOSTILE = "<img src=x onerror=alert(1)>\u202egnp.exe\x1b[2J"
NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)


@pytest.fixture
async def dashboard(
    settings: Settings, database: Database, streams: Streams
) -> AsyncIterator[Dashboard]:
    async with serving(settings, database, streams) as found:
        yield found


async def _letter(dashboard: Dashboard, detail: str, **values: Any) -> str:
    letter_id = new_id()
    row = {
        "id": letter_id, "stream": dashboard.parts.streams.keys.tasks, "entry": letter_id,
        "agent": None, "reason": DeadReason.UNKNOWN_AGENT, "detail": detail,
        "fields": {"data": json.dumps(HELLO)}, "created_at": NOW, **values,
    }  # fmt: skip
    row["fields"] = json_text(row["fields"])
    async with dashboard.parts.database.transaction() as connection:
        await connection.execute(
            text(
                "INSERT INTO dead_letters"
                " (id, stream, entry_id, agent, reason, detail, fields, created_at) VALUES"
                " (:id, :stream, :entry, :agent, :reason, :detail, CAST(:fields AS jsonb),"
                " :created_at)"
            ),
            row,
        )
    return letter_id


async def _open(dashboard: Dashboard) -> set[str]:
    page = await listing.dead_letters(dashboard.parts.database, is_open=True, limit=5000)
    return {row.id for row in page.rows}


async def _cause(person: Person, *, within: str = "/dead-letters") -> str:
    page = await person.get(within)
    (found,) = re.findall(r'href="(/dead-letters/causes/[0-9a-f]{32})"', page.text)
    return str(found)


def _fields(page: str, act: str) -> dict[str, str]:
    """What the form of this act carries beside its token."""
    form = page.partition(f'/{act}">')[2].partition("</form>")[0]
    found = dict(re.findall(r'name="(\w+)" value="([^"]*)"', form))
    found.pop("csrf")
    return found


async def test_letters_are_grouped_by_what_they_died_of(dashboard: Dashboard):
    """Ids and numbers do not tell two causes apart; words do, and so does the reason."""
    ada = await dashboard.person()
    for n in range(12):
        detail = f"entry {n}-{n}: task {new_id()} has no agent 'ecko' since 12:0{n % 10}:11.5"
        await _letter(dashboard, detail, agent="ecko", created_at=NOW + timedelta(minutes=n))
    await _letter(dashboard, "no agent 'other'", agent="other")
    await _letter(dashboard, "no agent 'other'", reason=DeadReason.CRASHED)

    page = (await ada.get("/dead-letters")).text
    narrowed = (await ada.get("/dead-letters?reason=unknown_agent&agent=ecko")).text
    cause = await _cause(ada, within="/dead-letters?agent=ecko")
    group = (await ada.get(cause)).text

    assert len(set(re.findall(r"/dead-letters/causes/([0-9a-f]{32})", page))) == 3
    assert page.index("<b>12</b>") < page.index("<b>1</b>")
    assert "<b>1</b>" not in narrowed
    assert "Deploy the agent" in group
    assert len(set(re.findall(r'href="/dead-letters/([0-9a-f-]{36})"', group))) == 12
    assert (await ada.get("/dead-letters?reason=no_such")).status_code == 422
    assert (await ada.get("/dead-letters?raeson=crashed")).status_code == 400


async def test_a_letter_is_shown_as_text(dashboard: Dashboard):
    """Whatever its message says, in every field and in the names of the fields."""
    ada = await dashboard.person()
    letter_id = await _letter(
        dashboard, HOSTILE.replace("\x1b", ""), agent=HOSTILE, fields={HOSTILE: HOSTILE}
    )

    for path in ("/dead-letters", "/dead-letters?view=open", f"/dead-letters/{letter_id}"):
        page = (await ada.get(path)).text
        assert "<img src=x" not in page
        assert "\u202e" not in page
        assert "⟨U+202E⟩" in page, path
    assert "␛[2J" in page


async def test_a_letter_is_redriven_from_its_page(dashboard: Dashboard):
    """And says afterwards who did it and what came of it; a second time it says so instead."""
    ada = await dashboard.person()
    letter_id = await _letter(dashboard, "no such agent")
    path = f"/dead-letters/{letter_id}"

    answer = await ada.send(f"{path}/redrive")
    again = await ada.send(f"{path}/drop")

    row = await listing.dead_letter(dashboard.parts.database, letter_id)
    assert row is not None
    assert (answer.status_code, answer.headers["location"]) == (303, path)
    assert (row.closed_as, row.closed_by) == ("redriven", f"key:{ada.key_id}")
    assert f"/tasks/{row.redriven_task_id}" in (await ada.get(path)).text
    assert again.status_code == 409
    assert "was redriven by key:" in again.text
    assert letter_id in (await ada.get("/dead-letters?view=closed")).text


async def test_what_cannot_be_redriven_says_why_and_stays_open(dashboard: Dashboard):
    """Alone on its page, in a group in the count."""
    ada = await dashboard.person()
    letter_id = await _letter(dashboard, "no JSON", fields={"data": "{"})
    cause = await _cause(ada)
    form = _fields((await ada.get(cause)).text, "redrive")

    alone = await ada.send(f"/dead-letters/{letter_id}/redrive")
    group = await ada.send(f"{cause}/redrive", **form)

    assert alone.status_code == 409
    assert "cannot be read again" in alone.text
    assert "1 cannot be redriven and stayed open" in (await ada.get(group.headers["location"])).text
    assert await _open(dashboard) == {letter_id}


async def test_a_group_is_closed_at_once_and_what_came_later_is_not(dashboard: Dashboard):
    """Nobody closes what they have not seen."""
    ada = await dashboard.person()
    for _ in range(3):
        await _letter(dashboard, "no agent 'ecko'")
    other = await _letter(dashboard, "no agent 'other'", created_at=NOW - timedelta(days=1))
    cause = re.findall(r"/dead-letters/causes/[0-9a-f]{32}", (await ada.get("/dead-letters")).text)
    page = (await ada.get(cause[0])).text
    later = await _letter(dashboard, "no agent 'ecko'", created_at=NOW + timedelta(seconds=1))

    answer = await ada.send(f"{cause[0]}/drop", **_fields(page, "drop"))
    told = (await ada.get(answer.headers["location"])).text

    assert "Drop 3 letters?" in page
    assert page.count('class="sample"') == 2
    assert "3 letters closed" in told
    assert await _open(dashboard) == {other, later}
    audit = await listing.audit(dashboard.parts.database, action="dead_letter.dropped")
    assert [each.actor for each in audit.rows] == [f"key:{ada.key_id}"] * 3


async def test_very_many_letters_are_not_closed_by_a_slip(
    dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch
):
    """Their number must be typed; here of 21, as a thousand would take seconds."""
    monkeypatch.setattr(dead_letters, "TYPED_ABOVE", 20)
    ada = await dashboard.person()
    async with dashboard.parts.database.transaction() as connection:
        await connection.execute(
            text(
                "INSERT INTO dead_letters (id, stream, entry_id, reason, detail, fields)"
                " SELECT gen_random_uuid(), 's', n::text, 'malformed', 'no id', '{}'"
                " FROM generate_series(1, 21) AS n"
            )
        )
    cause = await _cause(ada)
    page = (await ada.get(cause)).text
    form = _fields(page, "drop")

    slip = await ada.send(f"{cause}/drop", **form)
    assert "Type 21 to confirm" in page
    assert slip.status_code == 422
    assert "type their number, 21" in slip.text
    assert len(await _open(dashboard)) == 21

    await ada.send(f"{cause}/drop", **form, typed="21")
    assert await _open(dashboard) == set()


async def test_pages_of_a_group_hold_every_letter_once(dashboard: Dashboard):
    """Also of the same moment."""
    ada = await dashboard.person()
    ids = {await _letter(dashboard, "no such agent") for _ in range(60)}
    found: list[str] = []
    path = await _cause(ada)
    while path:
        page = (await ada.get(path)).text
        found += re.findall(r'href="/dead-letters/([0-9a-f-]{36})"', page)
        older = re.findall(r'rel="next" href="([^"]+)"', page)
        path = older[0].replace("&amp;", "&") if older else ""

    assert len(found) == 60
    assert set(found) == ids


async def test_only_who_may_closes_letters(dashboard: Dashboard):
    """Without the scope there is no button, and the form is refused; so is another site's."""
    reader = await dashboard.person(["dead:read"])
    writer = await dashboard.person(["dead:read", "dead:write"])
    stranger = await dashboard.person(["tasks:read"])
    letter_id = await _letter(dashboard, "no such agent")
    cause, path = await _cause(reader), f"/dead-letters/{letter_id}"

    for page in (cause, path):
        assert "Redrive" in (await writer.get(page)).text
        assert "Redrive" not in (await reader.get(page)).text
        assert (await stranger.get(page)).status_code == 403
        for act in ("redrive", "drop"):
            assert (await reader.send(f"{page}/{act}")).status_code == 403
            elsewhere = {"Sec-Fetch-Site": "cross-site"}
            answer = await writer.client.post(f"{page}/{act}", headers=elsewhere)
            assert answer.status_code == 403
            assert (await writer.client.post(f"{page}/{act}")).status_code == 403
    assert (await writer.send(f"{path}/burn")).status_code == 422
    assert (await writer.get(f"/dead-letters/{new_id()}")).status_code == 404
    assert await _open(dashboard) == {letter_id}


async def test_closing_many_stops_where_it_must_and_says_what_is_left():
    """At the end of its time, and where a server does not answer."""
    hours = iter(range(100))
    tried: list[str] = []

    async def close(letter_id: str) -> None:
        tried.append(letter_id)

    async def away(letter_id: str) -> None:
        if letter_id == "c":
            raise Unavailable("Redis", "away")

    late = await close_all("abcd", close, clock=lambda: next(hours) * 7.0)
    down = await close_all("abcd", away)

    assert late == Closed(done=2, refused=0, left=2)
    assert tried == ["a", "b"]
    assert down == Closed(done=2, refused=0, left=2)


def test_every_reason_is_explained():
    """Also one that is added later."""
    assert set(REASONS) == set(DeadReason)
