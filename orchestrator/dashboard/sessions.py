"""Who is signed in: a cookie, looked at on every request; deny by default.

The middleware turns away whoever has no session; signing in and the look of it alone are open.
"""

import time
from collections import OrderedDict, deque
from collections.abc import Callable

from fastapi import Request
from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.api.auth import KeyCache
from orchestrator.dashboard.failures import SignInNeeded, failed
from orchestrator.dashboard.forms import check_same_origin
from orchestrator.errors import OrchestratorError, PayloadTooLarge

OPEN = ("/sign-in", "/static/")  # a path, or the beginning of one
SAFE = frozenset({"GET", "HEAD"})
WRONG_PER_MINUTE = 10  # sign-ins of one address; a key cannot be guessed, but asking costs a query
ADDRESSES = 1000  # that are remembered


class Session:
    """Middleware: no session, no page; and nothing is changed from another site."""

    def __init__(self, app: ASGIApp, *, sessions: KeyCache, body_limit: int) -> None:
        """Store. `sessions` finds the key behind a cookie; `body_limit` in bytes."""
        self.app = app
        self.sessions = sessions
        self.body_limit = body_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let in who may come in."""
        state = scope.setdefault("state", {})
        state.update(key=None, session=None)
        headers, path = Headers(scope=scope), scope["path"]
        try:
            if scope["method"] not in SAFE:
                check_same_origin(headers)
                self._check_size(headers.get("content-length", ""))
            token = cookie_parser(headers.get("cookie", "")).get(cookie_name(scope))
            if token and not path.startswith("/static/"):
                state["key"] = await self.sessions.verify(token)
                state["session"] = token if state["key"] else None
            if state["key"] is None and not path.startswith(OPEN):
                raise SignInNeeded
        except OrchestratorError as error:
            await failed(Request(scope, receive), error)(scope, receive, send)
            return
        await self.app(scope, self._bounded(receive), send)

    def _check_size(self, said: str) -> None:
        if said.isdecimal() and int(said[:19]) > self.body_limit:
            raise PayloadTooLarge(int(said[:19]), self.body_limit)

    def _bounded(self, receive: Receive) -> Receive:
        taken = 0

        async def receiving() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self.body_limit:
                raise PayloadTooLarge(taken, self.body_limit)
            return message

        return receiving


class WrongSignIns:
    """How often each address has tried a key that is none, for a minute."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Store. `clock` in seconds."""
        self._clock = clock
        self._tried: OrderedDict[str, deque[float]] = OrderedDict()

    def are_too_many(self, address: str) -> bool:
        """True when it must wait."""
        tried = self._tried.get(address, deque())
        while tried and tried[0] <= self._clock() - 60:
            tried.popleft()
        return len(tried) >= WRONG_PER_MINUTE

    def note(self, address: str) -> None:
        """One more."""
        tried = self._tried.setdefault(address, deque(maxlen=WRONG_PER_MINUTE))
        tried.append(self._clock())
        self._tried.move_to_end(address)
        if len(self._tried) > ADDRESSES:
            self._tried.popitem(last=False)


def cookie_name(scope: Scope) -> str:
    """With `__Host-` where browsers allow it: then no other host of the domain can set it."""
    return "__Host-aurora" if scope["scheme"] == "https" else "aurora"
