"""Rules on real servers: storms become few investigations; a failing rule costs nobody else."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest

from orchestrator import Agent, Alert, Investigation, Rule, RunContext
from orchestrator.db.investigations import enrol
from orchestrator.investigation import Member
from orchestrator.parts import Parts
from orchestrator.registry import AgentRegistry, load_agents
from orchestrator.services.alerts import BATCH, AlertHandler
from orchestrator.settings import Settings
from orchestrator.streams.names import ALERT_HANDLER, ALERTS, CPS_ALERT_HANDLER, CPS_ALERTS
from orchestrator.task import new_id
from tests.api import assert_problem, serving
from tests.integration.test_spine import rows, running
from tests.support import wait_until

BY_RULE = """SELECT m.rule, i.key, i.alerts, i.severity, cardinality(i.task_ids) AS tasks,
count(*) AS members FROM investigations i JOIN investigation_alerts m ON m.investigation_id = i.id
GROUP BY i.id, m.rule ORDER BY m.rule, i.key"""


class Look(Agent[Alert, str]):
    """Looks at nothing."""

    async def run(self, task_input: Alert, ctx: RunContext) -> str:
        return task_input.id


class BySource(Rule):
    """A story is what one machine does."""

    agent = Look
    gather = timedelta(minutes=5)

    def correlation(self, alert: Alert) -> str | None:
        return alert.src_ip


class Alone(Rule):
    """Each by itself."""

    agent = Look
    signature = "alone"


class Mended:
    """Whether the rules below work by now."""

    now = False


class Broken(Rule):
    """Cannot do without an address until it is mended."""

    agent = Look
    signature = "broken"

    def matches(self, alert: Alert) -> bool:
        if not Mended.now:
            raise KeyError("src_port")
        return True


class BrokenStory(Rule):
    """Correlates, and then cannot say what its agent is to look at."""

    agent = Look
    signature = "broken"

    def correlation(self, alert: Alert) -> str | None:
        return alert.dest_ip

    def input(self, alert: Alert, investigation: Investigation | None) -> Alert:
        if not Mended.now:
            raise ValueError(alert.src_ip)
        return alert


def handler(parts: Parts, name: str = "one", *, kind: str = "network") -> AlertHandler:
    consumer = parts.consumer(ALERT_HANDLER if kind == "network" else CPS_ALERT_HANDLER)
    consumer.name = name
    return AlertHandler(
        consumer,
        parts.database,
        parts.registry,
        stream=ALERTS if kind == "network" else CPS_ALERTS,
        kind=kind,
        publish=parts.submitter.publish_accepted,
        cancel=parts.submitter.cancel,
        max_payload=parts.settings.max_payload,
    )


@pytest.fixture
async def parts(settings: Settings) -> AsyncIterator[Parts]:
    Mended.now = False
    registry = AgentRegistry([Look], [BySource, Alone, Broken, BrokenStory])
    found = Parts(settings, role="test", registry=registry)
    await found.streams.ensure_all_groups()
    yield found
    await found.close()


def alert(**said: Any) -> dict[str, Any]:
    return {"id": new_id(), "signature": "x", "severity": "low", "src_ip": "192.0.2.1"} | said


async def publish(parts: Parts, *alerts: dict[str, Any]) -> None:
    for each in alerts:
        await parts.publisher.publish_data(ALERTS, json.dumps(each).encode(), message_id=each["id"])


async def handle(one: AlertHandler) -> None:
    """All that is on the stream."""
    await one.consumer.watch({one.consumer.streams.keys.of(one.stream): one.stream})
    while batch := await one.consumer.read(50, block=0.05):
        await one._handle(batch)
        await one.consumer.acknowledge(batch)


async def test_a_storm_is_a_few_investigations_with_all_their_alerts(parts, database):
    """600 alerts of 12 machines, each delivered twice, two handlers: 12 stories of 50 alerts."""
    storm = [alert(src_ip=f"192.0.2.{n % 12}") for n in range(600)]
    storm[300]["severity"] = "critical"
    await publish(parts, *storm, *reversed(storm))

    await asyncio.gather(handle(handler(parts, "one")), handle(handler(parts, "two")))

    found = await rows(database, BY_RULE)
    assert [(each["alerts"], each["members"]) for each in found] == [(50, 50)] * 12
    assert [each["tasks"] for each in found] == [2, *[1] * 11]  # 300 % 12 = 0
    assert await rows(database, "SELECT count(*) AS n FROM alerts") == [{"n": 600}]
    (tasks,) = await rows(
        database,
        "SELECT count(*) AS n, count(*) FILTER (WHERE state = 'scheduled') AS waiting,"
        " count(*) FILTER (WHERE priority = 'high') AS urgent FROM tasks",
    )
    assert tasks == {"n": 13, "waiting": 12, "urgent": 1}
    assert await rows(database, "SELECT * FROM dead_letters") == []


async def test_a_critical_alert_is_looked_at_at_once_and_in_the_others_place(parts, database):
    """The task that still gathers is ended: nobody pays twice for one story."""
    one = handler(parts)
    await publish(parts, alert(), alert())
    await handle(one)
    await publish(parts, alert(severity="critical"), alert(severity="critical"))
    await handle(one)
    await publish(parts, alert(severity="critical"))
    await handle(one)

    (story,) = await rows(database, "SELECT * FROM investigations")
    tasks = await rows(
        database,
        "SELECT id::text AS id, state, priority, cancel_requested_by FROM tasks ORDER BY run_at",
    )
    assert (story["alerts"], story["severity"]) == (5, "critical")
    assert story["task_ids"] == [each["id"] for each in tasks]
    assert [(each["state"], each["priority"]) for each in tasks] == [
        ("scheduled", "normal"),
        ("queued", "high"),
    ]
    assert [each["cancel_requested_by"] for each in tasks] == ["one", None]
    assert await parts.arbiter.end_of(tasks[0]["id"]) == "cancelled"
    assert await parts.arbiter.end_of(tasks[1]["id"]) is None


async def test_a_storm_that_begins_critical_makes_one_task(parts, database):
    """It waits for nobody."""
    await publish(parts, alert(), alert(severity="critical"))
    await handle(handler(parts))

    (task,) = await rows(database, "SELECT state, priority, run_at, metadata FROM tasks")
    (story,) = await rows(database, "SELECT id::text AS id FROM investigations")
    assert (task["state"], task["priority"], task["run_at"]) == ("queued", "high", None)
    assert task["metadata"]["investigation_id"] == story["id"]


async def test_a_critical_alert_overtakes_a_backlog(parts, database):
    """It stands behind more than a batch, and is stored before them; nothing is left out."""
    one = handler(parts)
    late = alert(src_ip="192.0.2.99", severity="critical")
    await publish(parts, *[alert(src_ip=f"192.0.2.{n % 9}") for n in range(BATCH + 100)], late)
    await one.consumer.watch({one.consumer.streams.keys.of(ALERTS): ALERTS})

    first, *rest = await one._with_backlog(await one.consumer.read(BATCH))

    assert [json.loads(each.fields[b"data"])["id"] for each in first] == [late["id"]]
    assert [len(each) for each in rest] == [BATCH, 100]
    assert len({each.entry_id for part in rest for each in part}) == BATCH + 100


async def test_after_its_window_another_investigation_begins_and_old_alerts_stay(parts, database):
    """An alert of the first that comes again is not counted in the second."""
    one, first, second = handler(parts), alert(), alert()
    await publish(parts, first)
    await handle(one)
    async with database.transaction() as connection:
        await connection.exec_driver_sql(
            "UPDATE investigations SET open_until = now() - interval '1 s'"
        )
    await publish(parts, first)
    await handle(one)
    again = await rows(database, "SELECT alerts, closed_at IS NULL AS open FROM investigations")
    await publish(parts, second, first)
    await handle(one)

    found = await rows(
        database, "SELECT alerts, closed_at IS NULL AS open FROM investigations ORDER BY opened_at"
    )
    assert again == [{"alerts": 1, "open": False}]
    assert found == [{"alerts": 1, "open": False}, {"alerts": 1, "open": True}]


async def test_a_rule_that_fails_sets_the_alert_aside_for_itself_alone(parts, database):
    """Stored, the other rules' tasks made, and a letter that names the rules and why."""
    bad = alert(signature="alone and broken", dest_ip="192.0.2.99", src_ip="192.0.2.50")
    await publish(parts, bad, alert(signature="alone"))
    await handle(handler(parts))

    (letter,) = await rows(database, "SELECT reason, detail FROM dead_letters")
    assert letter["reason"] == "rule_failed"
    assert "rule 'broken': matches() raised KeyError" in letter["detail"]
    assert "rule 'broken_story': input() raised ValueError: 192.0.2.50" in letter["detail"]
    assert await rows(database, "SELECT count(*) AS n FROM alerts") == [{"n": 2}]
    by_rule = "SELECT metadata->>'rule' AS rule, count(*) AS n FROM tasks GROUP BY 1 ORDER BY 1"
    assert await rows(database, by_rule) == [
        {"rule": "alone", "n": 2},
        {"rule": "by_source", "n": 2},
    ]
    assert {each["rule"] for each in await rows(database, BY_RULE)} == {"by_source"}


async def test_after_mending_a_redriven_alert_is_made_up_for_and_counted_once(parts, database):
    """The same entry again: the failed rules' tasks, and nothing of the others twice."""
    bad = alert(signature="alone and broken", dest_ip="192.0.2.99")
    one = handler(parts)
    await publish(parts, bad)
    await handle(one)
    Mended.now = True
    await publish(parts, bad)
    await publish(parts, bad)
    await handle(one)

    by_rule = "SELECT metadata->>'rule' AS rule, count(*) AS n FROM tasks GROUP BY 1 ORDER BY 1"
    assert await rows(database, by_rule) == [
        {"rule": name, "n": 1} for name in ("alone", "broken", "broken_story", "by_source")
    ]
    found = await rows(database, BY_RULE)
    assert [(each["rule"], each["alerts"], each["members"]) for each in found] == [
        ("broken_story", 1, 1),
        ("by_source", 1, 1),
    ]
    (stored,) = await rows(database, "SELECT cardinality(task_ids) AS tasks FROM alerts")
    assert stored["tasks"] == 2  # by itself; those of its stories are with the stories


async def test_what_a_hostile_alert_calls_itself_is_a_key_like_any_other(parts, database):
    """Control characters and length do no harm to its neighbours."""
    names = ["a\x00b", "a\x1fb\x1e", "x" * 5000, "\u202e<script>", "'; DROP TABLE alerts; --"]
    await publish(parts, *[alert(src_ip=each) for each in [*names, *names]])
    await handle(handler(parts))

    found = await rows(database, "SELECT alerts FROM investigations")
    assert sum(each["alerts"] for each in found) == 10
    assert len(found) in (4, 5)  # the first two may be one once they can be stored
    assert await rows(database, "SELECT * FROM dead_letters") == []


async def test_the_api_shows_stories_and_their_alerts(parts, settings, database, streams):
    """By filter and by page, under the scope that reads alerts."""
    storm = [alert(), alert(), alert(), alert(src_ip="192.0.2.2", severity="high")]
    await publish(parts, *storm)
    await handle(handler(parts))
    path = "/api/v1/investigations"

    async with serving(settings, database, streams) as api:
        everything = (await api.client.get(path)).json()["items"]
        (quiet,) = (await api.client.get(path, params={"key": "192.0.2.1"})).json()["items"]
        (high,) = (await api.client.get(path, params={"severity": "high", "open": 1})).json()[
            "items"
        ]
        own = (await api.client.get(path, params={"alert": storm[3]["id"]})).json()["items"]
        over = (await api.client.get(path, params={"open": 0})).json()["items"]
        one = (await api.client.get(f"{path}/{quiet['id']}")).json()
        first = (await api.client.get(f"{path}/{quiet['id']}/alerts", params={"limit": 2})).json()
        rest = (
            await api.client.get(
                f"{path}/{quiet['id']}/alerts", params={"cursor": first["next_cursor"]}
            )
        ).json()
        nowhere = await api.client.get(f"{path}/{new_id()}/alerts")
        unasked = await api.client.get(path, headers=await api.with_scopes(["tasks:read"]))

    assert len(everything) == 2
    assert (one["alerts"], one["rule"], len(one["task_ids"])) == (3, "by_source", 1)
    assert (high["key"], over, own) == ("192.0.2.2", [], [high])
    shown = [each["id"] for each in first["items"] + rest["items"]]
    assert sorted(shown) == sorted(each["id"] for each in storm[:3])
    assert rest["next_cursor"] is None
    assert_problem(nowhere, 404, "investigation_not_found")
    assert_problem(unasked, 403)


async def test_a_devices_storm_is_summed_up_by_the_reference_agent(settings, database):
    """Three readings of one pump: one summary, the most serious signature first."""
    registry = load_agents([str(Path(__file__).parents[2] / "agents")])
    (rule,) = registry.rules_of(registry.get("device_storm"))
    found = Parts(settings, role="test", registry=registry)
    await found.streams.ensure_all_groups()
    said = {"device": "pump-3", "metric": "pressure", "value": 9, "severity": "low"}
    for each in (said, said, said | {"metric": "heat", "severity": "critical"}):
        await found.publisher.publish_data(CPS_ALERTS, json.dumps(each).encode())
    await handle(handler(found, kind="cps"))
    await found.close()

    async with running(settings, registry=registry):
        (result,) = await wait_until(
            lambda: rows(
                database, "SELECT output FROM results WHERE agent = :a", a=rule.agent.name
            ),
            what="the summary",
        )
    summary = result["output"]
    assert (summary["device"], summary["alerts"], summary["severity"]) == ("pump-3", 3, "critical")
    assert [(each["signature"], each["count"]) for each in summary["signatures"]] == [
        ("heat beyond threshold", 1),
        ("pressure beyond threshold", 2),
    ]


async def test_handlers_that_meet_in_many_stories_wait_and_never_deadlock(parts, database):
    """Two transactions with 300 keys each, in any order: Postgres never has to end one of them."""
    random, one = Random(1), handler(parts)

    async def enrol_all(keys: list[str]) -> None:
        members = [
            Member(
                alert=Alert.model_validate(alert(src_ip=key) | {"occurred_at": datetime.now(UTC)}),
                received_at=datetime.now(UTC),
                rule=BySource(),
                key=key,
            )
            for key in keys
        ]
        async with database.transaction() as connection:
            await enrol(connection, members, one._make, actor="test")

    keys = [str(n) for n in range(300)]
    for _ in range(5):
        await asyncio.gather(*(enrol_all(random.sample(keys, len(keys))) for _ in range(3)))

    (found,) = await rows(
        database, "SELECT count(*) AS n, sum(alerts) AS alerts FROM investigations"
    )
    assert found == {"n": 300, "alerts": 4500}
