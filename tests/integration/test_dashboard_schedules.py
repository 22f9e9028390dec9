"""The pages of schedules: what runs when, what became of it, and how one is made and stopped."""

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from orchestrator.cron import Crontab
from orchestrator.db import listing
from orchestrator.db.schedules import ScheduleStore
from orchestrator.db.session import Database
from orchestrator.db.ticks import Schedule
from orchestrator.settings import Settings
from orchestrator.streams.connection import Streams
from orchestrator.task import new_id
from tests.dashboard.serving import Dashboard, serving

HOSTILE = "<script>alert(1)</script>\u202e"
FORM = {
    "agent": "echo", "expression": "30 6 * * 1-5", "timezone": "Asia/Riyadh", "name": "mornings",
    "input": '{"text": "good morning"}', "catchup": "latest", "catchup_window_seconds": "600",
    "overlap": "skip",
}  # fmt: skip
# Field, what is typed there, what is said of it.
WRONG = (
    ("agent", "", "Choose the agent"),
    ("agent", "ecko", "did you mean &#39;echo&#39;"),
    ("expression", "61 6 * * *", "the fields are minute hour"),
    ("expression", "", "the fields are minute hour"),
    ("timezone", "Asia/Ryadh", "did you mean &#39;Asia/Riyadh&#39;"),
    ("input", "[1]", "A JSON object is needed"),
    ("input", '{"text": NaN}', "Not JSON that we take"),
    ("input", '{"text": 5}', "/text: Input should be a valid string"),
    ("catchup_window_seconds", "soon", "valid integer"),
    ("overlap", "maybe", "&#39;skip&#39;"),
)


@pytest.fixture
async def dashboard(
    settings: Settings, database: Database, streams: Streams
) -> AsyncIterator[Dashboard]:
    async with serving(settings, database, streams) as found:
        yield found


async def _schedule(dashboard: Dashboard, expression: str = "0 6 * * *", **options: Any) -> str:
    options = {"input": {"text": "hello"}} | options
    crontab = Crontab(expression=expression, **options)
    made = await ScheduleStore(dashboard.parts.database).create("echo", crontab, actor="test")
    return made.id


async def _standing(dashboard: Dashboard, name: str) -> Schedule | None:
    return await ScheduleStore(dashboard.parts.database).find(name)


async def _ticks(dashboard: Dashboard, schedule_id: str, count: int, **values: Any) -> None:
    row = {"outcome": "missed", "reason": "late; catch-up is none", "task": None} | values
    async with dashboard.parts.database.transaction() as connection:
        await connection.execute(
            text(
                "INSERT INTO schedule_ticks"
                " (schedule_id, fire_at, revision, outcome, reason, task_id, decided_by)"
                " SELECT CAST(:id AS uuid), now() - n * interval '1 minute', 1, :outcome, :reason,"
                " CAST(:task AS uuid), 'scheduler:a' FROM generate_series(1, :count) AS n"
            ),
            {"id": schedule_id, "count": count, **row},
        )


async def test_schedules_are_listed_in_words(dashboard: Dashboard):
    """With their last ticks, in shapes; an agent's own alone when asked for."""
    ada = await dashboard.person()
    empty = await ada.get("/schedules")
    schedule_id = await _schedule(dashboard, name=HOSTILE, timezone="Asia/Riyadh")
    await _ticks(dashboard, schedule_id, 30)

    page = (await ada.get("/schedules")).text

    assert "No schedules" in empty.text
    assert "At 06:00" in page
    assert "Asia/Riyadh" in page
    assert "<script>alert" not in page
    assert "⟨U+202E⟩" in page
    assert page.count('<li class="state warning"') == 20
    assert "late; catch-up is none" in page
    assert schedule_id in (await ada.get("/schedules?agent=echo")).text
    assert "No schedules of this agent" in (await ada.get("/schedules?agent=anything")).text


async def test_a_schedule_shows_its_next_ten_ticks_by_its_own_clock(dashboard: Dashboard):
    """And in UTC beside it."""
    ada = await dashboard.person()
    schedule_id = await _schedule(dashboard, "30 6 * * *", timezone="Asia/Riyadh")

    page = (await ada.get(f"/schedules/{schedule_id}")).text

    assert len(re.findall(r"20\d\d 06:30:00 <", page)) == 10
    assert len(re.findall(r"20\d\d 03:30:00<", page)) == 10


async def test_a_schedule_tells_what_became_of_each_tick(dashboard: Dashboard):
    """Page by page, with the reasons and the tasks."""
    ada = await dashboard.person()
    schedule_id, task_id = await _schedule(dashboard), new_id()
    await _ticks(dashboard, schedule_id, 60, reason="<b>the schedule was paused</b>", task=task_id)

    first = (await ada.get(f"/schedules/{schedule_id}")).text
    older = re.findall(r'rel="next" href="([^"]+)"', first)
    second = (await ada.get(older[0])).text

    assert "&lt;b&gt;the schedule was paused" in first
    assert f"/tasks/{task_id}" in first
    pattern = r'data-label="Tick"><time datetime="([^"]+)"'
    times = [re.findall(pattern, each) for each in (first, second)]
    assert [len(each) for each in times] == [50, 10]
    assert sorted({*times[0], *times[1]}, reverse=True) == times[0] + times[1]


async def test_a_schedule_is_paused_triggered_resumed_and_deleted(dashboard: Dashboard):
    """Each in the name of the person."""
    ada = await dashboard.person()
    schedule_id = await _schedule(dashboard, name="nightly")
    path = f"/schedules/{schedule_id}"

    await ada.send(f"{path}/pause")
    paused = await _standing(dashboard, "nightly")
    listed = (await ada.get("/schedules")).text
    task = await ada.send(f"{path}/trigger")
    await ada.send(f"{path}/resume")
    resumed = await _standing(dashboard, "nightly")
    gone = await ada.send(f"{path}/delete")

    assert paused is not None
    assert paused.paused_at is not None
    assert "paused" in listed
    assert task.headers["location"].startswith("/tasks/")
    assert resumed is not None
    assert resumed.paused_at is None
    assert gone.headers["location"] == "/schedules"
    assert (await ada.get(path)).status_code == 404
    audit = await listing.audit(dashboard.parts.database, object_id=schedule_id)
    assert [each.action for each in audit.rows] == [
        "schedule.deleted", "schedule.resumed", "schedule.paused", "schedule.created",
    ]  # fmt: skip
    assert {each.actor for each in audit.rows[:3]} == {f"key:{ada.key_id}"}


async def test_one_that_stands_on_a_class_cannot_be_deleted(dashboard: Dashboard):
    """It would come back; there is no button, and the page says where it is changed."""
    ada = await dashboard.person()
    crontab = Crontab(expression="0 5 * * *", input={"text": "x"})
    (declared,) = await ScheduleStore(dashboard.parts.database).sync_declared(
        [("echo", crontab)], actor="test"
    )

    page = await ada.get(f"/schedules/{declared.id}")
    answer = await ada.send(f"/schedules/{declared.id}/delete")

    assert "Delete" not in page.text
    assert answer.status_code == 409
    assert "what can be done here is to pause it" in answer.text


async def test_a_schedule_is_made_from_the_form(dashboard: Dashboard):
    """On to its page; the same name again is refused beside its field."""
    ada = await dashboard.person()

    answer = await ada.send("/schedules/new", **FORM)
    again = await ada.send("/schedules/new", **FORM)

    made = await _standing(dashboard, "mornings")
    assert made is not None
    assert (answer.status_code, answer.headers["location"]) == (303, f"/schedules/{made.id}")
    assert (made.expression, made.timezone, made.input) == (
        "30 6 * * 1-5", "Asia/Riyadh", {"text": "good morning"},
    )  # fmt: skip
    assert again.status_code == 422
    assert 'id="name-wrong"' in again.text


async def test_what_is_wrong_stands_beside_its_field(dashboard: Dashboard):
    """And what was typed is still there."""
    ada = await dashboard.person()
    for field, typed, right in WRONG:
        answer = await ada.send("/schedules/new", **(FORM | {field: typed}))

        assert answer.status_code == 422
        said = re.findall(rf'<span id="{field}-wrong"[^>]*>([^<]*)</span>', answer.text)
        assert right in said[0]
        assert answer.text.count('-wrong"') == 2  # the words, and the field that names them
        assert "good morning" in answer.text or field == "input"
    assert await _standing(dashboard, "mornings") is None


async def test_the_form_shows_when_a_line_would_fire(dashboard: Dashboard):
    """While somebody types; what cannot be read says what would be right."""
    ada = await dashboard.person()

    read = await ada.get("/schedules/preview?expression=0+6+*+*+*&timezone=Europe/Berlin")
    wrong = await ada.get(f"/schedules/preview?expression={HOSTILE}&timezone=UTC")
    none = await ada.get("/schedules/preview")

    assert "At 06:00" in read.text
    assert read.text.count("<tr>") == 11
    assert "the fields are minute hour" in wrong.text
    assert "<script>" not in wrong.text
    assert none.status_code == 200


async def test_a_scheduler_that_is_missing_is_missed(dashboard: Dashboard):
    """A tick that nobody has decided for a minute is said to be overdue; a paused one is not."""
    ada = await dashboard.person()
    schedule_id = await _schedule(dashboard)
    async with dashboard.parts.database.transaction() as connection:
        past = datetime.now(UTC) - timedelta(minutes=5)
        await connection.execute(text("UPDATE schedules SET next_tick_at = :at"), {"at": past})

    pages = [(await ada.get(each)).text for each in ("/schedules", f"/schedules/{schedule_id}")]
    await ada.send(f"/schedules/{schedule_id}/pause")
    paused = (await ada.get(f"/schedules/{schedule_id}")).text

    assert all("aurora scheduler" in each for each in pages)
    assert "Overdue" not in paused


async def test_a_zone_that_is_not_known_here_does_not_hide_the_others(dashboard: Dashboard):
    """The page says so, and the schedule can still be paused."""
    ada = await dashboard.person()
    schedule_id = await _schedule(dashboard)
    async with dashboard.parts.database.transaction() as connection:
        await connection.execute(text("UPDATE schedules SET timezone = 'Mars/Olympus'"))

    page = await ada.get(f"/schedules/{schedule_id}")
    paused = await ada.send(f"/schedules/{schedule_id}/pause")
    resumed = await ada.send(f"/schedules/{schedule_id}/resume")

    assert (await ada.get("/schedules")).status_code == 200
    assert "unknown time zone &#39;Mars/Olympus&#39;" in page.text
    assert paused.status_code == 303
    assert resumed.status_code == 409


async def test_only_who_may_changes_schedules(dashboard: Dashboard):
    """Without the scope there is no button, and the form is refused; so is another site's."""
    reader = await dashboard.person(["schedules:read"])
    writer = await dashboard.person(["schedules:read", "schedules:write"])
    stranger = await dashboard.person(["tasks:read"])
    path = f"/schedules/{await _schedule(dashboard)}"

    assert "Pause" in (await writer.get(path)).text
    assert "Pause" not in (await reader.get(path)).text
    assert "New schedule" not in (await reader.get("/schedules")).text
    assert (await reader.get("/schedules/new")).status_code == 403
    for page in ("/schedules", path):
        assert (await stranger.get(page)).status_code == 403
    acts = ("pause", "resume", "trigger", "delete")
    for form in ["/schedules/new", *(f"{path}/{act}" for act in acts)]:
        assert (await reader.send(form)).status_code == 403
        assert (await writer.client.post(form)).status_code == 403
        elsewhere = await writer.client.post(form, headers={"Sec-Fetch-Site": "cross-site"})
        assert elsewhere.status_code == 403
