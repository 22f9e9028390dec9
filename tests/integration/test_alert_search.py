"""Alerts are found by what is known of them, on a table of many, and somebody sees to them."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import text

from orchestrator.db import listing
from orchestrator.db.acknowledging import acknowledge
from orchestrator.db.session import Database
from orchestrator.settings import Settings
from orchestrator.streams.connection import Streams
from orchestrator.task import new_id
from tests.api import Api, assert_problem, serving

ALERTS = "/api/v1/alerts"
MANY = 50_000
# A minute apart, the last one just now; one in a thousand is critical, one in ten thousand is
# about 203.0.113.9, and a single one, the oldest of all, has a signature of its own.
SEED = """
INSERT INTO alerts (id, kind, source, severity, signature, signature_id, category, src_ip, dest_ip,
                    occurred_at, received_at, details, task_ids)
SELECT gen_random_uuid(), 'network', 'suricata',
       CASE WHEN n % 1000 = 0 THEN 'critical' WHEN n % 7 = 0 THEN 'high' ELSE 'low' END,
       CASE WHEN n = :many THEN 'ET 100% unique' ELSE 'ET SCAN ' || n END, n, 'scan',
       CASE WHEN n % 10000 = 0 THEN '203.0.113.9' ELSE '10.0.0.' || n % 250 END, '192.0.2.1',
       now() - n * interval '1 minute', now() - n * interval '1 minute', '{}', '{}'
FROM generate_series(1, :many) AS n
"""


@pytest.fixture
async def api(settings: Settings, database: Database, streams: Streams) -> AsyncIterator[Api]:
    async with serving(settings, database, streams) as found:
        yield found


async def store(database: Database, **given: Any) -> str:
    """One alert's row; its id."""
    row = {
        "id": new_id(), "kind": "network", "source": "suricata", "severity": "low",
        "signature": "ET SCAN Nmap", "signature_id": 1, "category": "scan", "src_ip": "10.0.0.1",
        "dest_ip": "192.0.2.1", "occurred_at": datetime.now(UTC), "task_ids": [],
        "received_at": datetime.now(UTC), "entry_id": "1-0",
    } | given  # fmt: skip
    names = ", ".join(row)
    async with database.transaction() as connection:
        await connection.execute(
            text(
                f"INSERT INTO alerts ({names}, details)"
                f" VALUES (:{names.replace(', ', ', :')}, '{{\"dns\": 1}}')"
            ),
            row,
        )
    return str(row["id"])


async def found(api: Api, **params: Any) -> list[str]:
    """The ids of every page."""
    ids: list[str] = []
    while True:
        answer = await api.client.get(ALERTS, params={"limit": 3} | params)
        assert answer.status_code == 200, answer.text
        ids += [each["id"] for each in answer.json()["items"]]
        if answer.json()["next_cursor"] is None:
            return ids
        params["cursor"] = answer.json()["next_cursor"]


async def test_each_filter_finds_its_alerts(api: Api):
    """Alone and together, whatever way the table is walked."""
    story = new_id()
    first = await store(api.parts.database)
    async with api.parts.database.transaction() as connection:
        await connection.execute(
            text("INSERT INTO investigation_alerts VALUES (:alert, 'a rule', :story)"),
            {"alert": first, "story": story},
        )
    cps = await store(api.parts.database, kind="cps", source="gate", severity="high", src_ip=None)
    beacon = await store(
        api.parts.database, severity="critical", signature="C2 Beacon_7 50%", signature_id=2**40,
        src_ip="192.0.2.1", dest_ip="10.0.0.1",
    )  # fmt: skip
    itself = await store(api.parts.database, src_ip="10.9.9.9", dest_ip="10.9.9.9")
    await acknowledge(api.parts.database, [cps], actor="key:x")

    for params, expected in (
        ({}, [itself, beacon, cps, first]),
        ({"kind": "cps"}, [cps]),
        ({"source": "gate"}, [cps]),
        ({"severity": "low"}, [itself, first]),
        ({"min_severity": "high"}, [beacon, cps]),
        ({"min_severity": "info"}, [itself, beacon, cps, first]),
        ({"address": "10.0.0.1"}, [beacon, first]),
        ({"address": "10.9.9.9"}, [itself]),
        ({"src_ip": "10.0.0.1"}, [first]),
        ({"dest_ip": "10.0.0.1"}, [beacon]),
        ({"signature": "c2 beacon_"}, [beacon]),
        ({"signature": "50%"}, [beacon]),
        ({"signature": "scan"}, [itself, cps, first]),
        ({"signature": "ET_SCAN"}, []),
        ({"signature_id": 2**40}, [beacon]),
        ({"acknowledged": True}, [cps]),
        ({"acknowledged": False}, [itself, beacon, first]),
        ({"investigation_id": story}, [first]),
        ({"address": "192.0.2.1", "min_severity": "high", "signature": "scan"}, [cps]),
        ({"acknowledged": False, "severity": "low", "source": "suricata"}, [itself, first]),
    ):
        assert await found(api, **params) == expected, params


async def test_time_bounds_an_alert_search(api: Api):
    """`since` is included, `until` is not."""
    at = [datetime(2026, 5, 1, hour, tzinfo=UTC) for hour in (1, 2, 3)]
    ids = [await store(api.parts.database, received_at=each) for each in at]

    since = await found(api, since=at[1].isoformat())
    until = await found(api, until=at[1].isoformat(), signature="scan")

    assert since == [ids[2], ids[1]]
    assert until == [ids[0]]


@pytest.mark.parametrize(
    "params",
    [
        {"severity": "dreadful"}, {"min_severity": "9"}, {"signature": "x" * 201},
        {"signature": "a\x00b"}, {"signature_id": "-1"}, {"signature_id": str(2**63)},
        {"investigation_id": "7"}, {"acknowledged": "perhaps"}, {"addres": "10.0.0.1"},
        {"since": "yesterday"},
    ],
)  # fmt: skip
async def test_a_filter_that_makes_no_sense_is_refused(api: Api, params: dict[str, str]):
    """P10: 4xx that names it, never an empty list."""
    answer = await api.client.get(ALERTS, params=params)

    body = assert_problem(answer, answer.status_code)
    assert 400 <= answer.status_code < 500
    assert next(iter(params)) in body["detail"]


async def test_a_search_looks_at_so_many_alerts_a_page(
    database: Database, monkeypatch: pytest.MonkeyPatch
):
    """And goes on from there: nothing is missed, nothing comes twice, though both ends match."""
    monkeypatch.setattr(listing, "LOOKED_AT", 10)
    wanted = []
    for n in range(45):
        rare = n % 20 == 0
        found_id = await store(
            database, signature="rare" if rare else "common", severity="high" if n % 2 else "low",
            src_ip="10.0.0.1" if n % 3 else "10.0.0.2", dest_ip="10.0.0.1",
        )  # fmt: skip
        wanted += [found_id] if rare else []

    for filters in ({}, {"address": "10.0.0.1"}, {"min_severity": "low"}):
        after, seen, pages = None, [], 0
        while True:
            page = await listing.alerts(database, signature="RARE", after=after, limit=2, **filters)
            seen += [row.id for row in page.rows]
            pages += 1
            if (after := page.next) is None:
                break
        assert seen == wanted[::-1], filters
        assert pages >= 4, filters


def _scans(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(each for inner in plan.get("Plans", ()) for each in _scans(inner))]


async def test_no_search_reads_the_whole_table(database: Database, monkeypatch: pytest.MonkeyPatch):
    """Over 50,000 alerts each way in is an index, and nothing but a few rows is sorted."""
    async with database.transaction() as connection:
        await connection.execute(text(SEED), {"many": MANY})
    async with database.engine.connect() as connection:
        await (await connection.execution_options(isolation_level="AUTOCOMMIT")).execute(
            text("VACUUM ANALYZE alerts")
        )
    monkeypatch.setattr(listing, "LOOKED_AT", 5_000)
    searches: list[dict[str, Any]] = [
        {}, {"severity": "critical"}, {"min_severity": "high"}, {"address": "203.0.113.9"},
        {"src_ip": "203.0.113.9"}, {"acknowledged": False}, {"acknowledged": True},
        {"investigation_id": new_id()}, {"kind": "cps"}, {"source": "nobody"},
        {"signature": "unique"}, {"signature_id": 7}, {"address": "192.0.2.1", "kind": "cps"},
    ]  # fmt: skip
    for filters in searches:
        plans = []
        async with Explained(database, plans):
            await listing.alerts(database, **filters)
        assert plans
        for plan in plans:
            for node in _scans(plan):
                assert node["Node Type"] != "Seq Scan", (filters, node)
                rows = node["Actual Rows"] * node["Actual Loops"]
                removed = node.get("Rows Removed by Filter", 0)
                assert rows + removed <= 2 * listing.LOOKED_AT + 1, (filters, node)


class Explained:
    """Plans, as run, of the statements that the searches in this block make."""

    def __init__(self, database: Database, plans: list[dict[str, Any]]) -> None:
        self.engine = database.engine.sync_engine
        self.plans = plans

    async def __aenter__(self) -> None:
        from sqlalchemy import event

        event.listen(self.engine, "before_cursor_execute", self._explain)

    async def __aexit__(self, *_: object) -> None:
        from sqlalchemy import event

        event.remove(self.engine, "before_cursor_execute", self._explain)

    def _explain(self, _connection, cursor, statement, parameters, *_: object) -> None:
        if "FROM alerts" in statement:
            cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters)
            (said,) = cursor.fetchone()
            self.plans.append((json.loads(said) if isinstance(said, str) else said)[0]["Plan"])


async def test_an_alert_is_read_with_everything_its_sensor_said(api: Api):
    """And with where it stood on its stream."""
    alert_id = await store(api.parts.database, entry_id="17-3")

    one = (await api.client.get(f"{ALERTS}/{alert_id}")).json()
    nobody = await api.client.get(f"{ALERTS}/{new_id()}")

    assert (one["details"], one["entry_id"]) == ({"dns": 1}, "17-3")
    assert (one["acknowledged_at"], one["acknowledged_by"]) == (None, None)
    assert_problem(nobody, 404, "alert_not_found")


async def _acts(database: Database, alert_id: str) -> list[Any]:
    async with database.transaction() as connection:
        return list(
            await connection.execute(
                text(
                    "SELECT action, actor, before, after FROM audit_events"
                    " WHERE object_id = :id ORDER BY id"
                ),
                {"id": alert_id},
            )
        )


async def test_who_acknowledges_first_stays_and_the_audit_says_it(api: Api):
    """Said twice it changes nothing and is audited once."""
    alert_id = await store(api.parts.database)
    analyst = await api.with_scopes(["alerts:acknowledge"])

    first = await api.client.post(f"{ALERTS}/{alert_id}/acknowledge")
    again = await api.client.post(f"{ALERTS}/{alert_id}/acknowledge", headers=analyst)

    assert first.json()["acknowledged_by"] == again.json()["acknowledged_by"] == api.actor
    assert first.json()["acknowledged_at"] == again.json()["acknowledged_at"]
    ((action, actor, before, after),) = await _acts(api.parts.database, alert_id)
    assert (action, actor) == ("alert.acknowledged", api.actor)
    assert before == {"acknowledged_at": None, "acknowledged_by": None}
    assert after["acknowledged_by"] == api.actor
    assert datetime.fromisoformat(after["acknowledged_at"]) == datetime.fromisoformat(
        first.json()["acknowledged_at"]
    )


async def test_an_acknowledgement_is_taken_back(api: Api):
    """By anybody who may give one; before and after are in the audit."""
    alert_id = await store(api.parts.database)
    await api.client.post(f"{ALERTS}/{alert_id}/acknowledge")

    answers = [await api.client.post(f"{ALERTS}/{alert_id}/unacknowledge") for _ in range(2)]

    assert [each.json()["acknowledged_by"] for each in answers] == [None, None]
    _, (action, _, before, after) = await _acts(api.parts.database, alert_id)
    assert action == "alert.unacknowledged"
    assert before["acknowledged_by"] == api.actor
    assert after == {"acknowledged_at": None, "acknowledged_by": None}


async def test_a_sensors_key_sees_to_nothing(api: Api):
    """Whoever may write alerts could otherwise put its own out of sight."""
    alert_id = await store(api.parts.database)
    sensor = await api.with_scopes(["alerts:write", "alerts:read"])

    for act in ("acknowledge", "unacknowledge"):
        answer = await api.client.post(f"{ALERTS}/{alert_id}/{act}", headers=sensor)
        assert assert_problem(answer, 403)["missing_scope"] == "alerts:acknowledge"
    assert await _acts(api.parts.database, alert_id) == []


async def test_an_alert_that_nobody_has_seen_is_not_acknowledged(api: Api):
    """404; of several, none."""
    alert_id = await store(api.parts.database)

    answer = await api.client.post(f"{ALERTS}/{new_id()}/acknowledge")

    assert_problem(answer, 404, "alert_not_found")
    with pytest.raises(Exception, match="no alert"):
        await acknowledge(api.parts.database, [alert_id, new_id()], actor="cli:x")
    assert await _acts(api.parts.database, alert_id) == []


async def test_of_two_who_acknowledge_together_one_is_first(api: Api):
    """However their alerts overlap, and without a deadlock."""
    ids = [await store(api.parts.database) for _ in range(20)]

    await asyncio.gather(
        *(
            acknowledge(api.parts.database, ids[:: 1 if n % 2 else -1], actor=f"key:{n}")
            for n in range(6)
        )
    )

    acts = [act for each in ids for act in await _acts(api.parts.database, each)]
    assert len(acts) == len(ids)
    assert len({actor for _, actor, _, _ in acts}) == 1
