"""Alerts over HTTP: one or many, onto the stream of their kind, as they were sent."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from orchestrator.db.session import Database
from orchestrator.settings import Settings
from orchestrator.streams.connection import Streams
from orchestrator.task import new_id
from tests.api import Api, assert_problem, serving

ALERTS = "/api/v1/alerts"
EVE = {
    "timestamp": "2026-01-05T10:00:00.000000+0000", "event_type": "alert", "src_ip": "192.0.2.7",
    "alert": {"signature": "ET SCAN", "signature_id": 1, "category": "scan", "severity": 2},
}  # fmt: skip
OURS = {"signature": "odd", "severity": "high"}
DEVICE = {"device": "pump-3", "metric": "pressure", "value": 9, "severity": "high", "kind": "cps"}


@pytest.fixture
async def api(settings: Settings, database: Database, streams: Streams) -> AsyncIterator[Api]:
    async with serving(settings, database, streams) as found:
        yield found


async def _entries(api: Api, suffix: str) -> list[tuple[str, Any]]:
    found = await api.parts.streams.commands.xrange(f"{api.parts.streams.keys.prefix}:{suffix}")
    return [(fields[b"id"].decode(), json.loads(fields[b"data"])) for _, fields in found]


async def test_an_alert_goes_on_the_stream_as_it_was_sent(api: Api):
    """Evidence is not rewritten; the answer has the id under which it will be found."""
    answer = await api.client.post(ALERTS, json=EVE)

    assert answer.status_code == 202, answer.text
    assert await _entries(api, "alerts") == [(answer.json()["ids"][0], EVE)]
    ((_, act),) = await _entries(api, "audit")
    assert (act["action"], act["actor"]) == ("alerts.submitted", api.actor)
    assert act["detail"] == {"count": 1, "alert_ids": answer.json()["ids"]}


async def test_many_alerts_each_go_on_the_stream_of_their_kind(api: Api):
    """The alert's own kind wins over the request's."""
    own_id = new_id()

    answer = await api.client.post(ALERTS, json=[EVE, DEVICE, OURS | {"id": own_id}])
    rest = await api.client.post(ALERTS, json=OURS, params={"kind": "cps"})

    ids = answer.json()["ids"]
    assert [each[0] for each in await _entries(api, "alerts")] == [ids[0], own_id]
    assert [each[0] for each in await _entries(api, "cps:alerts")] == [ids[1], *rest.json()["ids"]]


async def test_the_same_alert_twice_is_one_where_the_sender_asks_for_it(api: Api):
    """`ids=content`; otherwise each is an alert of its own."""
    plain = [(await api.client.post(ALERTS, json=EVE)).json()["ids"] for _ in range(2)]
    same = [
        (await api.client.post(ALERTS, json=said, params={"ids": "content"})).json()["ids"]
        for said in (EVE, dict(reversed(EVE.items())), OURS)
    ]

    assert plain[0] != plain[1]
    assert same[0] == same[1] != same[2]


async def test_of_many_alerts_all_or_none_are_accepted(api: Api):
    """And each that is none is named."""
    body = assert_problem(
        await api.client.post(ALERTS, json=[EVE, {"event_type": "dns"}, {"x": 1}]),
        422,
        "invalid_alert",
    )

    assert [each["pointer"] for each in body["errors"]] == ["/1", "/2"]
    assert "only event_type 'alert' is" in body["errors"][0]["message"]
    assert not await _entries(api, "alerts")
    assert not await _entries(api, "audit")


@pytest.mark.parametrize("body", [[], "x", [7], 7, None])
async def test_what_is_no_alert_at_all_is_refused(api: Api, body: Any):
    """422, whatever it is."""
    assert_problem(await api.client.post(ALERTS, json=body), 422)


async def test_an_alert_too_large_for_a_message_is_refused(api: Api):
    """Rather than becoming a dead letter."""
    large = OURS | {"details": {"x": "y" * api.parts.settings.max_payload}}

    found = assert_problem(await api.client.post(ALERTS, json=large), 422, "invalid_alert")

    assert "over the limit" in found["detail"]


async def test_with_redis_away_an_alert_is_not_accepted(
    settings: Settings, database: Database, keys: Any
):
    """No false 202: there is no row behind an alert yet."""
    nowhere = Streams("redis://127.0.0.1:1/0", keys)
    async with serving(settings, database, nowhere) as api:
        assert_problem(await api.client.post(ALERTS, json=EVE), 503, "unavailable")
    await nowhere.close()


async def test_while_redis_is_nearly_full_alerts_are_turned_away(
    api: Api, monkeypatch: pytest.MonkeyPatch
):
    """P8: what is in there must find room to be finished."""

    async def nearly_full() -> float:
        return 0.71

    monkeypatch.setattr(api.parts.streams, "memory_share", nearly_full)
    assert_problem(await api.client.post(ALERTS, json=EVE), 429, "overloaded")


async def test_what_a_producer_writes_is_described(api: Api):
    """The alert's schema for whoever may write them; the streams' document for any key."""
    sensor = await api.with_scopes(["alerts:write"])

    schema = await api.client.get(f"{ALERTS}/schema", headers=sensor)
    document = await api.client.get("/asyncapi.json", headers=sensor)
    async with api.anonymous() as nobody:
        assert_problem(await nobody.get("/asyncapi.json"), 401)

    assert schema.json()["required"] == ["signature", "severity"]
    addresses = [each["address"] for each in document.json()["channels"].values()]
    assert addresses[:2] == [
        f"{api.parts.settings.prefix}:alerts", f"{api.parts.settings.prefix}:cps:alerts",
    ]  # fmt: skip
