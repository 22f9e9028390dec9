"""Schedules over HTTP: made, read, changed, paused, triggered, foreseen, deleted."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from orchestrator.cron import crontab
from orchestrator.db.schedules import ScheduleStore
from orchestrator.db.session import Database
from orchestrator.settings import Settings
from orchestrator.streams.connection import Streams
from orchestrator.task import new_id
from tests.api import Api, assert_problem, serving

SCHEDULES = "/api/v1/schedules"
DAILY = {
    "agent": "echo", "expression": "0 6 * * *", "timezone": "Asia/Riyadh",
    "input": {"text": "good morning"},
}  # fmt: skip


@pytest.fixture
async def api(settings: Settings, database: Database, streams: Streams) -> AsyncIterator[Api]:
    async with serving(settings, database, streams) as found:
        yield found


async def _made(api: Api, **body: Any) -> dict[str, Any]:
    answer = await api.client.post(SCHEDULES, json=DAILY | body)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_schedule_is_made_changed_and_deleted(api: Api):
    """Each step audited in the name of the key."""
    made = await _made(api, name="morning", catchup="all", catchup_window_seconds=60)
    at = f"{SCHEDULES}/{made['id']}"
    assert (await api.client.get(at)).json() == made
    assert (made["origin"], made["catchup"], made["catchup_window_seconds"]) == ("api", "all", 60)

    changed = (await api.client.patch(at, json={"expression": "30 6 * * *"})).json()
    deleted = await api.client.delete(at)

    assert changed["expression"] == "30 6 * * *"
    assert changed["revision"] == made["revision"] + 1
    kept = ("name", "timezone", "input", "catchup", "catchup_window_seconds", "overlap")
    assert {name: changed[name] for name in kept} == {name: made[name] for name in kept}
    assert deleted.status_code == 204
    assert_problem(await api.client.get(at), 404, "schedule_not_found")
    audit = await api.client.get("/api/v1/audit", params={"object_id": made["id"]})
    assert [(each["action"], each["actor"]) for each in audit.json()["items"]] == [
        ("schedule.deleted", api.actor),
        ("schedule.updated", api.actor),
        ("schedule.created", api.actor),
    ]


async def test_a_schedule_is_paused_and_resumed(api: Api):
    """Twice is once."""
    at = f"{SCHEDULES}/{(await _made(api))['id']}"

    for verb, paused in (("pause", True), ("pause", True), ("resume", False), ("resume", False)):
        body = (await api.client.post(f"{at}/{verb}")).json()
        assert (body["paused_at"] is not None) == paused


async def test_a_schedule_is_triggered_now(api: Api):
    """A task beside its ticks, which names it and who asked."""
    made = await _made(api)

    answer = await api.client.post(f"{SCHEDULES}/{made['id']}/trigger")

    task = (await api.client.get(answer.headers["location"])).json()
    assert answer.status_code == 202
    assert task["input"] == {"text": "good morning", "times": 1}
    assert task["metadata"] == {
        "schedule_id": made["id"], "schedule": made["name"], "triggered_by": api.actor,
    }  # fmt: skip


async def test_the_next_ten_ticks_are_foreseen(api: Api):
    """In UTC: six in Riyadh is three."""
    made = await _made(api)

    found = (await api.client.get(f"{SCHEDULES}/{made['id']}/preview")).json()
    other = await api.client.post(f"{SCHEDULES}/preview", json={"expression": "*/5 * * * *"})

    assert len(found["ticks"]) == len(other.json()["ticks"]) == 10
    assert all(each.endswith("T03:00:00Z") for each in found["ticks"])
    assert datetime.fromisoformat(found["ticks"][0]) > datetime.now(UTC)
    assert found["in_words"] == "At 06:00 every day"


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ({"expression": "61 * * * *"}, "invalid_schedule", "the fields are minute hour"),
        ({"expression": "0 0 31 2 *"}, "invalid_schedule", "day-of-month"),
        ({"timezone": "Asia/Riyad"}, "invalid_schedule", "did you mean 'Asia/Riyadh'"),
        ({"agent": "ecko"}, "unknown_agent", "did you mean 'echo'"),
        ({"input": {"text": 7}}, "invalid_input", "/text"),
        ({"overlap": "sometimes"}, "invalid_request", "/overlap"),
        ({"cathcup": "all"}, "invalid_request", "did you mean 'catchup'"),
        ({"catchup_window_seconds": 10**12}, "invalid_request", "/catchup_window_seconds"),
    ],
)
async def test_a_schedule_that_could_never_fire_is_refused(
    api: Api, body: dict[str, Any], code: str, said: str
):
    """P10, when it is made and when it is changed."""
    found = assert_problem(await api.client.post(SCHEDULES, json=DAILY | body), 422, code)

    assert said in found["detail"]
    if "agent" not in body:
        at = f"{SCHEDULES}/{(await _made(api))['id']}"
        assert_problem(await api.client.patch(at, json=body), 422, code)


async def test_a_name_is_given_once(api: Api):
    """409 rather than a second schedule."""
    await _made(api, name="morning")
    other = await _made(api, name="evening")

    assert_problem(await api.client.post(SCHEDULES, json=DAILY | {"name": "morning"}), 409)
    renamed = await api.client.patch(f"{SCHEDULES}/{other['id']}", json={"name": "morning"})
    assert_problem(renamed, 409, "schedule_exists")


async def test_a_schedule_declared_on_an_agent_can_only_be_paused(api: Api):
    """It would come back at the scheduler's next start."""
    store = ScheduleStore(api.parts.database)
    (declared,) = await store.sync_declared([("echo", crontab("0 7 * * *"))], actor="scheduler")
    at = f"{SCHEDULES}/{declared.id}"

    assert_problem(await api.client.patch(at, json={"overlap": "allow"}), 409, "schedule_declared")
    assert_problem(await api.client.delete(at), 409, "schedule_declared")
    assert (await api.client.post(f"{at}/pause")).status_code == 200


async def test_schedules_are_listed_by_name_in_pages(api: Api):
    """Each once."""
    names = [f"s{n}" for n in range(5)]
    for name in names:
        await _made(api, name=name)

    first = (await api.client.get(SCHEDULES, params={"limit": 3})).json()
    second = await api.client.get(SCHEDULES, params={"limit": 3, "cursor": first["next_cursor"]})
    none = await api.client.get(SCHEDULES, params={"agent": "anything"})

    shown = [each["name"] for each in first["items"] + second.json()["items"]]
    assert shown == names
    assert second.json()["next_cursor"] is None
    assert none.json() == {"items": [], "next_cursor": None}


async def test_what_became_of_ticks_is_listed(api: Api):
    """Nothing yet, for one that has just been made."""
    made = await _made(api)

    found = await api.client.get(f"{SCHEDULES}/{made['id']}/ticks")

    assert found.json() == {"items": [], "next_cursor": None}
    for verb in ("pause", "resume", "trigger"):
        nobody = await api.client.post(f"{SCHEDULES}/{new_id()}/{verb}")
        assert_problem(nobody, 404, "schedule_not_found")
