"""/api/v1/alerts/live (WebSocket), /alerts/events and /tasks/events (SSE): news as it comes.

`docs/live.md` is for who writes a client.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Header, Query, Request, WebSocket
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocketDisconnect

from orchestrator.alert import AlertKind, Severity
from orchestrator.api.auth import PROTOCOL, TICKET, KeyCache, key_of, needs
from orchestrator.api.feed import HEARTBEAT, Feed, Gap, Here, Told
from orchestrator.api.live import chunks, frames, wanted
from orchestrator.api.parts import Parts
from orchestrator.api.problems import Problem
from orchestrator.api.requests import check_parameters, guarded
from orchestrator.db.keys import Scope
from orchestrator.errors import MalformedMessage, OrchestratorError, Overloaded, Unavailable
from orchestrator.streams import tickets
from orchestrator.streams.position import Position

T = TypeVar("T")
Telling = AsyncGenerator[list[Told[Any]], None]

# Seconds between looks at a client's key; with the 3 s of the cache below the 5 s of a revocation.
RECHECK = 1.5
LONGEST = 15 * 60.0  # seconds of one event stream; the client comes back by itself
GOING_AWAY, UNAUTHORISED, TRY_AGAIN = 1012, 4401, 1013  # close codes

alerts = guarded("/api/v1/alerts", "alerts")
tasks = guarded("/api/v1/tasks", "tasks")

LastId = Annotated[
    str | None, Query(max_length=200, description="the `id` of the last message that you have")
]
LastEventId = Annotated[str | None, Header(max_length=200)]
Kind = Annotated[AlertKind | None, Query(description="only these")]
Least = Annotated[Severity | None, Query(description="this serious or more")]


class LiveTicket(BaseModel):
    """What a browser shows in place of a key, once."""

    ticket: str
    expires_in: int = tickets.GOOD_FOR  # seconds
    protocols: list[str]  # to offer when connecting


class KeyNoLongerGood(OrchestratorError):
    """The key was revoked or has expired while its client was connected."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A client's key, looked at again and again."""

    keys: KeyCache
    key_id: str

    async def check(self) -> None:
        """Raise KeyNoLongerGood; while Postgres is away, what was good stays good."""
        with suppress(Unavailable):
            if await self.keys.verify(self.key_id) is None:
                raise KeyNoLongerGood("this key was revoked, or has expired")


async def _watched(connection: HTTPConnection) -> Watched:
    return Watched(connection.app.state.keys_by_id, key_of(connection).id)


Client = Annotated[Watched, Depends(_watched)]


@alerts.post(
    "/live/ticket",
    status_code=201,
    operation_id="issueLiveTicket",
    dependencies=[needs(Scope.ALERTS_READ)],
)
async def issue_ticket(request: Request, parts: Parts) -> LiveTicket:
    """A ticket for one WebSocket, which browsers can give no header. Good for 30 s, once."""
    ticket = await tickets.issue(parts.streams, key_of(request).id)
    return LiveTicket(ticket=ticket, protocols=[PROTOCOL, f"{TICKET}{ticket}"])


@alerts.get(
    "/events",
    operation_id="followAlerts",
    response_class=StreamingResponse,
    dependencies=[needs(Scope.ALERTS_READ)],
)
async def alert_events(
    parts: Parts,
    client: Client,
    *,
    kind: Kind = None,
    severity: Least = None,
    last_id: LastId = None,
    last_event_id: LastEventId = None,
) -> StreamingResponse:
    """Server-sent events, `alert` and `gap`: each alert once and in order, or a gap that says so.

    `Last-Event-ID` (or `last_id`) goes on where an earlier one ended.
    """
    feed = parts.live.alerts
    since = _since(feed, last_event_id or last_id)
    _admit(feed)
    return EventStream(parts, _told(feed, since, wanted(kind, severity), client), feed.name)


@tasks.get(
    "/events",
    operation_id="followTasks",
    response_class=StreamingResponse,
    dependencies=[needs(Scope.TASKS_READ)],
)
async def task_events(
    parts: Parts, client: Client, *, last_id: LastId = None, last_event_id: LastEventId = None
) -> StreamingResponse:
    """Server-sent events, `task` and `gap`: a task has changed its state. News, not the record.

    Of changes of one task that wait for a slow client, the last one is told.
    """
    feed = parts.live.tasks
    since = _since(feed, last_event_id or last_id)
    _admit(feed)
    return EventStream(parts, _told(feed, since, lambda _: True, client), feed.name)


@alerts.get("/live", operation_id="upgradeToLive", dependencies=[needs(Scope.ALERTS_READ)])
async def upgrade_first() -> None:
    """Only a WebSocket is served here."""
    raise Problem(
        HTTPStatus.UPGRADE_REQUIRED,
        "upgrade_required",
        "this is a WebSocket; for server-sent events GET /api/v1/alerts/events",
        headers={"Upgrade": "websocket"},
    )


@alerts.websocket("/live", dependencies=[needs(Scope.ALERTS_READ)])
async def alerts_live(
    socket: WebSocket,
    parts: Parts,
    client: Client,
    *,
    kind: Kind = None,
    severity: Least = None,
    last_id: LastId = None,
) -> None:
    """Each alert once and in order, or a gap that says so."""
    check_parameters(socket, ("kind", "severity", "last_id"))
    feed = parts.live.alerts
    since = _since(feed, last_id)
    _admit(feed)
    await socket.accept(PROTOCOL if PROTOCOL in socket.scope["subprotocols"] else None)
    parts.live.websockets += 1
    try:
        await _serve(socket, _told(feed, since, wanted(kind, severity), client), feed.name)
    finally:
        parts.live.websockets -= 1


class EventStream(StreamingResponse):
    """Server-sent events of one client, counted."""

    def __init__(self, parts: Parts, told: Telling, name: str) -> None:
        """Send what is told; the headers keep proxies from holding it back."""
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(
            self._counted(parts, told, name), headers=headers, media_type="text/event-stream"
        )

    async def _counted(self, parts: Parts, told: Telling, name: str) -> AsyncIterator[str]:
        until = time.monotonic() + LONGEST
        parts.live.event_streams += 1
        try:
            yield "retry: 2000\n\n"
            async with aclosing(told):
                async for each in told:
                    for chunk in chunks(each, name):
                        yield chunk
                    if time.monotonic() > until:
                        break
            yield ": come back with Last-Event-ID; nothing is lost\n\n"
        except OrchestratorError as error:
            yield f": {error}\n\n"
        finally:
            parts.live.event_streams -= 1


async def _told(
    feed: Feed[T], since: Position | None, wants: Callable[[T], bool], client: Watched
) -> AsyncGenerator[list[Told[T]], None]:
    """What the feed tells for as long as the client's key is good; heartbeats are rare."""
    check_at = quiet_until = 0.0
    async with aclosing(feed.follow(since, wants, heartbeat=RECHECK)) as told:
        async for each in told:
            now = time.monotonic()
            if now >= check_at:
                await client.check()
                check_at = now + RECHECK
            only = each[0]
            if isinstance(only, Here) and not only.joined and now < quiet_until:
                continue
            quiet_until = now + HEARTBEAT
            yield each


async def _serve(socket: WebSocket, told: Telling, name: str) -> None:
    sending = asyncio.create_task(_send(socket, told, name), name="aurora live sending")
    listening = asyncio.create_task(_listen(socket), name="aurora live listening")
    try:
        await asyncio.wait({sending, listening}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in (sending, listening):
            each.cancel()
        await asyncio.gather(sending, listening, return_exceptions=True)
    if sending.cancelled() or sending.exception() is not None:
        if not sending.cancelled():
            sending.result()
        return
    code, reason = sending.result()
    with suppress(WebSocketDisconnect, RuntimeError):
        await socket.close(code, reason)


async def _send(socket: WebSocket, told: Telling, name: str) -> tuple[int, str]:
    """Send until it ends; with which code and why."""
    last: Told[Any] | None = None
    try:
        async with aclosing(told):
            async for each in told:
                last = each[-1]
                for frame in frames(each, name):
                    await socket.send_text(frame)
    except KeyNoLongerGood as error:
        return UNAUTHORISED, str(error)
    except (Overloaded, Unavailable) as error:
        return TRY_AGAIN, f"try again in {error.retry_after} s"
    except WebSocketDisconnect:
        return GOING_AWAY, "gone"
    if isinstance(last, Gap):
        return TRY_AGAIN, last.reason
    return GOING_AWAY, "this server stops; another one goes on with last_id"


async def _listen(socket: WebSocket) -> None:
    """A client has nothing to say; what it sends is read, so that its close is heard."""
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass


def _since(feed: Feed[Any], text: str | None) -> Position | None:
    try:
        return feed.position_of(text) if text else None
    except MalformedMessage as error:
        raise Problem(422, "invalid_position", str(error)) from error


def _admit(feed: Feed[Any]) -> None:
    if feed.tail.clients >= feed.tail.most_clients:
        raise Overloaded(f"{feed.tail.clients} live clients are connected", retry_after=5)
