"""/live/tasks and /live/alerts: a bell that rings when there is news; a page then asks for it.

Server-sent events without content, at most four a second however much happens: what a page shows
comes from the record, under the filters and scopes of the page.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import closing, suppress
from typing import Any

from fastapi import Request
from starlette.responses import Response, StreamingResponse

from orchestrator.api.auth import KeyCache, needs
from orchestrator.api.feed import HEARTBEAT
from orchestrator.api.parts import Parts
from orchestrator.dashboard.routing import pages
from orchestrator.db.keys import Scope
from orchestrator.errors import Overloaded, Unavailable
from orchestrator.runtime.service import wait_at_most
from orchestrator.streams.live import LiveTail

router = pages()

PAUSE = 0.25  # seconds between two rings
RECHECK = 1.5  # seconds between looks at the session; with its cache less than 5 after a revocation
LONGEST = 15 * 60.0  # seconds of one stream; the browser comes back by itself
HEADERS = {"X-Accel-Buffering": "no"}  # or a proxy would hold it back


@router.get("/live/tasks", dependencies=[needs(Scope.TASKS_READ)])
async def tasks_bell(request: Request, parts: Parts) -> Response:
    """Rings when a task has changed its state."""
    return _bell(request, parts.live.tasks.tail)


@router.get("/live/alerts", dependencies=[needs(Scope.ALERTS_READ)])
async def alerts_bell(request: Request, parts: Parts) -> Response:
    """Rings when an alert has come in."""
    return _bell(request, parts.live.alerts.tail)


def _bell(request: Request, tail: LiveTail[Any]) -> Response:
    if tail.clients >= tail.most_clients:
        raise Overloaded(f"{tail.clients} live clients are connected", retry_after=5)
    sessions: KeyCache = request.app.state.sessions
    rings = _rings(tail, sessions, request.state.session)
    return StreamingResponse(rings, media_type="text/event-stream", headers=HEADERS)


async def _rings(tail: LiveTail[Any], sessions: KeyCache, session: str) -> AsyncIterator[str]:
    rung, until, silent_since = asyncio.Event(), time.monotonic() + LONGEST, time.monotonic()

    def ring(_: Any) -> bool:
        rung.set()
        return False  # nothing of it is queued

    yield "retry: 2000\n\n"
    with suppress(Unavailable, Overloaded), closing(await tail.subscribe(ring)) as subscription:
        while subscription.ended is None and time.monotonic() < until:
            await wait_at_most(RECHECK, rung)
            if await sessions.verify(session) is None:
                return
            if rung.is_set():
                rung.clear()
                silent_since = time.monotonic()
                yield "event: news\ndata:\n\n"
                await asyncio.sleep(PAUSE)
            elif time.monotonic() - silent_since > HEARTBEAT:
                silent_since = time.monotonic()
                yield ": here\n\n"
