"""The live feed on real servers: where a client goes on, what is a gap, who may follow."""

import asyncio
import json
import random
import socket
from collections.abc import AsyncIterator
from contextlib import aclosing

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from orchestrator.api.feed import Here
from orchestrator.app import alerts as alert_handlers
from orchestrator.db import keys
from orchestrator.db.session import Database
from orchestrator.settings import Settings
from orchestrator.streams import live as live_tail
from orchestrator.streams.connection import Streams
from orchestrator.streams.names import ALERTS, RESULTS
from orchestrator.streams.publisher import Publisher
from orchestrator.streams.told import LiveMessage
from tests.integration.test_spine import rows, running
from tests.live import Client, Replica, alert, replica
from tests.support import wait_until


@pytest.fixture
async def api(settings: Settings, database: Database, streams: Streams) -> AsyncIterator[Replica]:
    await streams.ensure_all_groups()
    async with replica(settings, database, streams) as found:
        yield found


async def _closed(client: Client, *, fewer_than: int = 1) -> tuple[int, list[dict]]:
    """The code with which it is closed, and what is told before: fewer alerts than that."""
    told = []

    async def listen() -> None:
        while sum("alert" in each for each in told) < fewer_than:
            told.append(await client.next())

    with pytest.raises(ConnectionClosed) as closed:
        await listen()
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code, told


async def test_alerts_of_both_streams_come_live_and_filtered(api: Replica, streams: Streams):
    """Each client hears what it asked for; an entry that is no alert is nobody's."""
    async with (
        api.client() as everything,
        api.client("?severity=high&kind=cps") as few,
    ):
        await everything.live()
        await few.live()
        await streams.commands.xadd(streams.keys.of(ALERTS), {"data": "no alert"})
        await alert(streams, "a", severity="low")
        await alert(streams, "b", severity="low", cps=True)
        await alert(streams, "c", severity="critical", cps=True)

        told = await everything.alerts(3)
        assert await few.signatures(1) == ["c"]

    assert sorted(each["alert"]["signature"] for each in told) == ["a", "b", "c"]
    assert {each["kind"] for each in told} == {"network", "cps"}
    assert all(each["entry_id"] in each["id"].split("/") for each in told)


async def test_a_client_goes_on_where_it_left_off_on_another_replica(
    api: Replica, settings: Settings, database: Database, streams: Streams
):
    """Nothing of what came in between is lost, nothing comes again; a bare entry id does, too."""
    async with replica(settings, database, streams) as other:
        async with api.client() as client:
            await client.live()
            first = await alert(streams, "a")
            assert await client.signatures(1) == ["a"]
        for name in "bcd":
            await alert(streams, name, cps=name == "c")

        async with other.client(f"?last_id={client.position}") as again:
            assert sorted(await again.signatures(3)) == ["b", "c", "d"]
            await again.live()
            await alert(streams, "e")
            assert await again.signatures(1) == ["e"]
        async with other.client(f"?last_id={first}") as bare:
            assert sorted(await bare.signatures(4)) == ["b", "c", "d", "e"]


async def test_what_was_trimmed_comes_from_the_record(
    api: Replica, settings: Settings, database: Database, streams: Streams
):
    """In the stream's order, and on to what the stream still has."""
    first = await alert(streams, "0")
    async with running(settings, roles=(alert_handlers,)):
        for n in range(1, 6):
            await alert(streams, str(n))
        await wait_until(lambda: rows(database, "SELECT 1 FROM alerts OFFSET 5"), what="recorded")
    cut = await alert(streams, "6")
    await streams.commands.xtrim(streams.keys.of(ALERTS), minid=cut, approximate=False)

    async with api.client(f"?last_id={first}") as client:
        told = await client.alerts(6)

    assert [each["alert"]["signature"] for each in told] == list("123456")
    assert told[0]["alert"]["severity"] == "high"


async def test_what_nobody_has_is_a_gap(api: Replica, streams: Streams):
    """The stream was trimmed before a handler had read it: said, and gone on after it."""
    first = await alert(streams, "a")
    await alert(streams, "b")
    cut = await alert(streams, "c")
    await streams.commands.xtrim(streams.keys.of(ALERTS), minid=cut, approximate=False)

    async with api.client(f"?last_id={first}/0-0") as client:
        gap, after = await client.alerts(2)

    assert gap["gap"]["from"].startswith(first)
    assert "not recorded" in gap["gap"]["reason"]
    assert after["alert"]["signature"] == "c"


async def _is_past(streams: Streams, entry_id: str) -> bool:
    seconds, microseconds = await streams.commands.time()
    return seconds * 1000 + microseconds // 1000 > int(entry_id.partition("-")[0])


async def test_a_stream_that_was_reset_is_a_gap(api: Replica, streams: Streams):
    """A position of its earlier life says nothing about what was lost since."""
    await alert(streams, "a")
    last = await alert(streams, "b")
    await streams.commands.delete(streams.keys.of(ALERTS))
    # A new stream may give an id of the same millisecond again; it would be part of the gap.
    await wait_until(lambda: _is_past(streams, last), what="the next millisecond")
    await alert(streams, "c")

    async with api.client(f"?last_id={last}/0-0") as client:
        gap, after = await client.alerts(2)

    assert "reset" in gap["gap"]["reason"]
    assert after["alert"]["signature"] == "c"


async def test_an_alert_that_is_published_twice_is_told_once(api: Replica, streams: Streams):
    """By its id, live and after coming back."""
    twice = "018f0000-0000-7000-8000-00000000000a"
    async with api.client() as client:
        await client.live()
        start = client.position
        await alert(streams, "a", id=twice)
        await alert(streams, "a", id=twice)
        await alert(streams, "b")
        assert await client.signatures(2) == ["a", "b"]

    async with api.client(f"?last_id={start}") as again:
        assert await again.signatures(2) == ["a", "b"]


@pytest.mark.parametrize("seed", range(4))
async def test_the_seam_neither_loses_nor_repeats(api: Replica, streams: Streams, seed: int):
    """Alerts are published while clients come and go at random moments."""
    chance = random.Random(seed)
    count = 150
    start = await alert(streams, "start")

    async def publish() -> None:
        for n in range(count):
            await alert(streams, f"{n}", cps=n % 3 == 0)
            if chance.random() < 0.2:
                await asyncio.sleep(chance.random() / 200)

    async def follow() -> list[str]:
        heard: list[str] = []
        position = start
        while len(heard) < count:
            async with api.client(f"?last_id={position}") as client:
                for _ in range(chance.randrange(1, 60)):
                    if len(heard) == count:
                        break
                    said = await client.next()
                    position = said["id"]
                    assert "gap" not in said
                    if "alert" in said:
                        heard.append(said["alert"]["signature"])
        return heard

    publishing = asyncio.create_task(publish())
    for heard in await asyncio.gather(*(follow() for _ in range(4))):
        assert sorted(map(int, heard)) == list(range(count))
        for kind in (0, 1):
            of_kind = [int(each) for each in heard if (int(each) % 3 == 0) == kind]
            assert of_kind == sorted(of_kind)
    await publishing


async def test_what_the_past_has_read_the_tail_does_not_repeat(api: Replica, streams: Streams):
    """The past may have read further than the tail, which hears of the same entries later."""
    feed = api.api.parts.live.alerts
    ahead = await alert(streams, "a")
    since = feed.position_of("0-0/0-0")
    async with aclosing(feed.follow(since, lambda _: True)) as told:
        (first,) = await anext(told)
        # As if the tail had stood before it when it was joined, and came upon it only now.
        while not isinstance((await anext(told))[0], Here):
            pass
        (subscription,) = feed.tail._subscriptions
        assert isinstance(first, LiveMessage)
        subscription.offer(first)
        await alert(streams, "b")
        (then,) = await anext(told)

    assert isinstance(then, LiveMessage)
    assert str(first.entry_id) == ahead
    assert then.reading.value.signature == "b"


async def test_a_client_that_does_not_read_is_let_go_and_the_others_are_not(
    api: Replica, streams: Streams, monkeypatch: pytest.MonkeyPatch
):
    """Its queue ends at a bound; another hears every alert meanwhile."""
    deaf = socket.create_connection(("127.0.0.1", api.port))
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    deaf.sendall(
        (
            "GET /api/v1/alerts/live HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
            "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            f"Authorization: Bearer {api.api.key}\r\n\r\n"
        ).encode()
    )
    tail = api.api.parts.live.alerts.tail
    await wait_until(lambda: tail.clients == 1, what="the deaf one is connected")
    async with api.client() as other:
        await other.live()
        # About 6 MB: more than both ends' buffers of the operating system and our queue take.
        for n in range(0, 6000, 50):
            await asyncio.gather(
                *(alert(streams, f"{each} {'x' * 900}") for each in range(n, n + 50))
            )
            assert len(await other.alerts(50)) == 50
            if tail.dropped:
                break

        assert tail.dropped > live_tail.MOST_MESSAGES
        (slow,) = (each for each in tail._subscriptions if each.ended)
        assert not slow._waiting
    deaf.close()
    await wait_until(lambda: tail.clients == 0, what="it is forgotten")


async def test_a_slow_client_is_told_where_to_go_on(
    api: Replica, streams: Streams, monkeypatch: pytest.MonkeyPatch
):
    """A gap marker, then 1013; with its last id nothing is lost."""
    monkeypatch.setattr(live_tail, "MOST_MESSAGES", 5)
    async with api.client() as client:
        await client.live()
        tail = api.api.parts.live.alerts.tail
        (subscription,) = tail._subscriptions
        # One write, so that all of them come before the client's turn.
        pipe = streams.commands.pipeline()
        for n in range(20):
            data = json.dumps({"signature": str(n), "severity": "high"})
            pipe.xadd(streams.keys.of(ALERTS), {"data": data})
        await pipe.execute()
        code, told = await _closed(client, fewer_than=20)

    assert subscription.ended == "slow"
    assert code == 1013
    assert "last_id" in told[-1]["gap"]["reason"]
    heard = [each["alert"]["signature"] for each in told[:-1] if "alert" in each]
    async with api.client(f"?last_id={told[-1]['id']}") as again:
        heard += await again.signatures(20 - len(heard))
    assert heard == [str(n) for n in range(20)]


@pytest.mark.parametrize(
    ("origin", "status"),
    [("https://evil.example", 403), ("null", 403), ("http://127.0.0.1:1", 403), ("own", 101)],
)
async def test_only_our_own_pages_may_connect(api: Replica, origin: str, status: int):
    """Exactly our own, whatever the visitor's browser could show."""
    own = origin == "own"
    headers = api.header | {"Origin": f"http://127.0.0.1:{api.port}" if own else origin}
    if own:
        async with api.client(additional_headers=headers) as client:
            await client.live()
        return
    with pytest.raises(InvalidStatus) as refused:
        async with api.client(additional_headers=headers):
            pass
    assert refused.value.response.status_code == status
    assert b"AURORA_ALLOWED_ORIGINS" in (refused.value.response.body or b"")


async def test_an_allowed_origin_may_connect(
    settings: Settings, database: Database, streams: Streams
):
    """A page that is served elsewhere, named by a setting."""
    there = "https://soc.example"
    settings = settings.model_copy(update={"allowed_origins": (there,)})
    async with (
        replica(settings, database, streams) as api,
        api.client(additional_headers=api.header | {"Origin": there}) as client,
    ):
        await client.live()


async def test_a_ticket_opens_one_socket_once_on_any_replica(
    api: Replica, settings: Settings, database: Database, streams: Streams
):
    """Redis keeps its hash alone, and not for long."""
    issued = await api.api.client.post("/api/v1/alerts/live/ticket")
    ticket = issued.json()
    assert issued.status_code == 201
    (key,) = [
        each async for each in streams.commands.scan_iter(match=f"{streams.keys.prefix}:ticket:*")
    ]
    assert ticket["ticket"] not in key.decode()
    assert 0 < await streams.commands.ttl(key) <= 30

    async with replica(settings, database, streams) as other:
        offered = {"subprotocols": ticket["protocols"], "additional_headers": {}}
        async with other.client(**offered) as client:
            await client.live()
            assert client.socket.subprotocol == "aurora"
        with pytest.raises(InvalidStatus) as again:
            async with api.client(**offered):
                pass
    assert again.value.response.status_code == 403


@pytest.mark.parametrize("query", ["?ticket=x", "?token=x", "?key=ak_1", ""])
async def test_without_a_key_no_socket_opens(api: Replica, query: str):
    """And what is said names what would have been right."""
    with pytest.raises(InvalidStatus) as refused:
        async with api.client(query, additional_headers={}):
            pass
    assert refused.value.response.status_code == 401
    assert b"belongs in the URL" in (refused.value.response.body or b"")


@pytest.mark.parametrize(
    ("query", "status"),
    [("?last_id=none", 422), ("?severity=huge", 422), ("?sevrity=high", 400), ("?kind=x", 422)],
)
async def test_a_wrong_question_is_answered_before_the_upgrade(
    api: Replica, query: str, status: int
):
    """As a problem, like everywhere."""
    with pytest.raises(InvalidStatus) as refused:
        async with api.client(query):
            pass
    assert refused.value.response.status_code == status
    assert json.loads(refused.value.response.body or b"{}")["status"] == status


async def test_a_key_without_the_scope_may_not_follow(api: Replica):
    """The scope of a WebSocket is checked like any route's."""
    headers = await api.api.with_scopes(["tasks:read"])
    with pytest.raises(InvalidStatus) as refused:
        async with api.client(additional_headers=headers):
            pass
    assert refused.value.response.status_code == 403


async def test_a_revoked_key_closes_what_it_opened(api: Replica, streams: Streams):
    """Of both kinds, though nothing comes in."""
    key_id, key = await keys.create_key(api.api.parts.database, "short", ["alerts:read"])
    header = {"Authorization": f"Bearer {key}"}
    async with (
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{api.port}", headers=header) as client,
        client.stream("GET", "/api/v1/alerts/events") as events,
        api.client(additional_headers=header) as socket_client,
    ):
        await socket_client.live()
        await keys.revoke(api.api.parts.database, key_id)

        code, _ = await _closed(socket_client)
        rest = [line async for line in events.aiter_lines()]

    assert code == 4401
    assert any("revoked" in line for line in rest)


async def test_a_large_frame_is_refused(api: Replica):
    """A client has nothing to say that long."""
    async with api.client() as client:
        await client.live()
        await client.socket.send("ignored")
        await client.socket.send("x" * 70_000)
        code, _ = await _closed(client)
    assert code == 1009


async def test_beyond_the_limit_a_client_is_told_to_come_later(api: Replica):
    """Before the upgrade, with a time."""
    api.api.parts.live.alerts.tail.most_clients = 1
    async with api.client() as client:
        await client.live()
        with pytest.raises(InvalidStatus) as refused:
            async with api.client():
                pass
    assert refused.value.response.status_code == 429
    assert refused.value.response.headers["Retry-After"]


async def test_server_sent_events_go_on_after_their_last_id(api: Replica, streams: Streams):
    """As browsers read them."""
    first = await alert(streams, "a")
    await alert(streams, "b\ndata: forged")

    client = httpx2.AsyncClient(base_url=f"http://127.0.0.1:{api.port}", headers=api.header)
    given = {"Last-Event-ID": first}
    async with client, client.stream("GET", "/api/v1/alerts/events", headers=given) as events:
        lines = events.aiter_lines()
        seen = []
        while not any(line.startswith("data:") for line in seen):
            seen.append(await anext(lines))
        assert events.headers["content-type"].startswith("text/event-stream")
        assert events.headers["cache-control"] == "no-store"
        metrics = (await api.api.client.get("/metrics")).text

    assert seen[0] == "retry: 2000"
    assert "event: alert" in seen
    assert json.loads(seen[-1].removeprefix("data: "))["alert"]["signature"] == "b\ndata: forged"
    assert "aurora_sse_clients 1.0" in metrics
    assert "aurora_ws_clients 0.0" in metrics
    assert "aurora_relay_dropped_total 0.0" in metrics


async def test_a_server_that_stops_lets_everybody_go_at_once(
    settings: Settings, database: Database, streams: Streams
):
    """1012, and an event stream that ends: clients come back elsewhere."""
    async with replica(settings, database, streams) as api:
        client = httpx2.AsyncClient(base_url=f"http://127.0.0.1:{api.port}", headers=api.header)
        async with client, client.stream("GET", "/api/v1/alerts/events") as events:
            async with api.client() as socket_client:
                await socket_client.live()
                api.api.parts.live.stop()
                code, _ = await _closed(socket_client)
            rest = [line async for line in events.aiter_lines()]
    assert code == 1012
    assert any("Last-Event-ID" in line for line in rest)


async def test_a_process_without_clients_reads_nothing(api: Replica, streams: Streams):
    """The first client begins the reading, the last one ends it."""
    tail = api.api.parts.live.alerts.tail
    assert tail._reading is None
    async with api.client() as client:
        await client.live()
        assert tail._reading is not None
    await wait_until(lambda: tail._reading is None, what="nobody reads")


async def test_changes_of_tasks_are_followed(api: Replica, streams: Streams):
    """A task that is submitted and cancelled is news; what a model cost it is none."""
    client = httpx2.AsyncClient(base_url=f"http://127.0.0.1:{api.port}", headers=api.header)
    async with client, client.stream("GET", "/api/v1/tasks/events") as events:
        lines = events.aiter_lines()
        while not (await anext(lines)).startswith("id:"):
            pass
        task_id = await api.api.submit()
        spent = {"task_id": task_id, "agent": "echo", "event": "usage", "usage": {"model": "a:b"}}
        publisher = Publisher(streams, producer="test")
        await publisher.publish_data(RESULTS, json.dumps(spent).encode())
        await api.api.client.post(f"/api/v1/tasks/{task_id}/cancel")
        line = ""
        while not line.startswith("data:"):
            line = await anext(lines)
    said = json.loads(line.removeprefix("data: "))["task"]
    assert (said["task_id"], said["state"]) == (task_id, "cancelled")
