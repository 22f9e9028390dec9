"""Sends one reply of the scripted provider, or stays silent, or cuts the connection."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import assert_never

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from orchestrator.testing import wire
from orchestrator.testing.replies import Answer, Disconnect, Hang, Malformed, Refused, Reply, Status
from orchestrator.testing.request import Request

# The transport under the connection of a client's address; None once it has ended.
Transports = Callable[[tuple[str, int]], asyncio.Transport | None]


@dataclass(frozen=True, slots=True)
class Seen:
    """One request and what became of it."""

    request: Request | None  # None: it could not be read
    status: int | None  # None: the connection ended before a whole reply was sent
    seconds: float  # from the request read to its end
    tokens: wire.Tokens | None = None  # of an answer that was sent whole


class Sending(Response):
    """One reply on its way; says at its end what became of it."""

    def __init__(
        self,
        reply: Reply,
        request: Request | None,
        *,
        headers: Mapping[str, str],
        transports: Transports,
        note: Callable[[Seen], None],
    ) -> None:
        self._reply, self._request, self._said = reply, request, headers
        self._transports, self._note = transports, note
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As Starlette calls a response."""
        began = time.monotonic()
        sent = None
        try:
            sent = await self._perform(scope, receive, send)
        finally:
            status, tokens = (sent.status, sent.tokens) if sent else (None, None)
            self._note(Seen(self._request, status, time.monotonic() - began, tokens))

    async def _perform(self, scope: Scope, receive: Receive, send: Send) -> wire.Sent | None:
        """The reply as it was sent, None where it was not sent whole."""
        match self._reply:
            case Answer() | Malformed() | Refused() | Status() as reply:
                seconds, cut = (reply.seconds if isinstance(reply, Answer) else 0.0), False
            case Hang(seconds, reply):
                cut = False
            case Disconnect(reply):
                seconds, cut = 0.0, True
            case _:
                assert_never(self._reply)
        if seconds and not await _silent(receive, seconds):
            return None
        transport = self._transports(scope["client"])
        if transport is None or transport.is_closing():
            return None
        if reply is None:
            transport.abort()
            await receive()
            return None
        sent = self._rendered(reply)
        await send(_start(sent, self._said))
        if cut:
            half = sent.body[: len(sent.body) // 2]
            await send({"type": "http.response.body", "body": half, "more_body": True})
            transport.close()
            await receive()
            return None
        await send({"type": "http.response.body", "body": sent.body})
        return None if transport.is_closing() else sent

    def _rendered(self, reply: Answer | Malformed | Refused | Status) -> wire.Sent:
        if isinstance(reply, Status):
            return wire.error(reply)
        if isinstance(reply, Malformed):
            return wire.malformed(reply)
        assert self._request is not None  # noqa: S101 - what cannot be read gets a Status
        if isinstance(reply, Refused):
            return wire.refused(reply, self._request)
        return wire.answer(reply, self._request)


async def _silent(receive: Receive, seconds: float) -> bool:
    """False if the client, or the server, ended the connection meanwhile."""
    gone = asyncio.ensure_future(receive())
    try:
        done, _ = await asyncio.wait({gone}, timeout=seconds)
    finally:
        gone.cancel()
    return not done


def _start(sent: wire.Sent, headers: Mapping[str, str]) -> dict[str, object]:
    told = {**headers, **sent.headers, "content-length": str(len(sent.body))}
    raw = [
        (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in told.items()
    ]
    return {"type": "http.response.start", "status": sent.status, "headers": raw}
