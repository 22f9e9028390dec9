"""Who may call what: `Authorization: Bearer ak_...`, scopes by route, and deny by default.

The middleware turns away whoever has no valid key before anything of the request is looked at;
each route then names the scope that it needs, and `app.py` refuses to serve one that names none.
A WebSocket may show a single-use ticket instead, as a browser can give it no header, and must come
from an origin that is ours or allowed.
"""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer, SecurityScopes
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as AsgiScope

from orchestrator.api.problems import Problem, answer
from orchestrator.db.keys import ApiKey, Scope, verify
from orchestrator.db.session import Database
from orchestrator.errors import OrchestratorError
from orchestrator.streams import tickets
from orchestrator.streams.connection import Streams

OPEN = frozenset({"/livez", "/readyz", "/metrics"})  # for probes and scrapers, which carry no key
# Seconds. Revocation must take effect within 5; what is left is for a slow look at the table.
CACHE_FOR = 3.0
CACHED = 1000  # keys

PROTOCOL = "aurora"  # the subprotocol that a WebSocket speaks
TICKET = "ticket."  # before a ticket, as a further subprotocol that is offered


class _Shown(HTTPBearer):
    """For the OpenAPI document alone; the middleware has decided before."""

    async def __call__(self, connection: HTTPConnection) -> None:
        """Nothing."""


_bearer = _Shown(auto_error=False, scheme_name="ApiKey", description="Bearer ak_<id>_<secret>")


@dataclass(frozen=True, slots=True)
class _Remembered:
    key: ApiKey
    until: float  # on the clock given


class KeyCache:
    """Verified keys for a few seconds. Remembers hashes, never a key's text."""

    def __init__(
        self,
        database: Database,
        *,
        look: Callable[[Database, str], Awaitable[ApiKey | None]] = verify,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Store. `look` finds the valid key behind a text; `clock` in seconds."""
        self._database = database
        self._look = look
        self._clock = clock
        self._known: OrderedDict[bytes, _Remembered] = OrderedDict()

    async def verify(self, given: str) -> ApiKey | None:
        """The valid key that this text is, None when it is none. Raises Unavailable."""
        digest = _digest(given)
        found = self._known.get(digest)
        if found is not None and self._clock() < found.until:
            return found.key if found.key.is_valid(datetime.now(UTC)) else None
        self._known.pop(digest, None)
        # Before the look, so that what is older than the answer never stays longer.
        asked_at = self._clock()
        key = await self._look(self._database, given)
        if key is not None:
            self._known[digest] = _Remembered(key, asked_at + CACHE_FOR)
            if len(self._known) > CACHED:
                self._known.popitem(last=False)
        return key

    def forget(self, given: str) -> None:
        """Look it up again the next time."""
        self._known.pop(_digest(given), None)


class Authentication:
    """Middleware: no valid key, no service, also where there is nothing to serve."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: KeyCache,
        keys_by_id: KeyCache,
        streams: Streams,
        allowed_origins: Collection[str],
    ) -> None:
        """Store. `keys_by_id` finds the key behind a ticket, which `streams` keeps."""
        self.app = app
        self.keys = keys
        self.keys_by_id = keys_by_id
        self.streams = streams
        self.allowed_origins = frozenset(allowed_origins)

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Let the open paths through, and whoever shows a valid key."""
        is_open = scope["type"] == "http" and scope["path"] in OPEN
        if scope["type"] != "lifespan" and not is_open:
            try:
                scope.setdefault("state", {})["key"] = await self._authenticated(scope)
            except OrchestratorError as error:
                await answer(scope, error)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    async def _authenticated(self, scope: AsgiScope) -> ApiKey:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if scope["type"] == "websocket":
            _check_origin(scope, self.allowed_origins)
            if not given:
                return await self._ticketed(scope)
        if len(given) != 1:
            raise _unauthenticated("send one header: Authorization: Bearer ak_...", None)
        scheme, _, token = given[0].decode("latin-1").partition(" ")
        if scheme.lower() != "bearer":
            raise _unauthenticated("the scheme is Bearer: Authorization: Bearer ak_...", None)
        key = await self.keys.verify(token.strip())
        if key is None:
            raise _unauthenticated(
                "this key is unknown, revoked or expired; `aurora keys create` makes one",
                "invalid_token",
            )
        return key

    async def _ticketed(self, scope: AsgiScope) -> ApiKey:
        """The key behind the ticket among the subprotocols; URLs are logged, and carry none."""
        shown = [each for each in scope.get("subprotocols", ()) if each.startswith(TICKET)]
        if len(shown) != 1:
            raise _unauthenticated(
                "send the header Authorization: Bearer ak_..., or offer the subprotocols"
                f" {PROTOCOL} and {TICKET}<ticket>, of POST /api/v1/alerts/live/ticket;"
                " neither belongs in the URL",
                None,
            )
        holder = await tickets.redeem(self.streams, shown[0].removeprefix(TICKET))
        key = await self.keys_by_id.verify(holder) if holder is not None else None
        if key is None:
            raise Problem(
                403,
                "invalid_ticket",
                f"this ticket is unknown, used or older than {tickets.GOOD_FOR} s;"
                " POST /api/v1/alerts/live/ticket gives another",
            )
        return key


def _check_origin(scope: AsgiScope, allowed: Collection[str]) -> None:
    """A page of another site must not use a visitor's rights. Raises Problem.

    A program sends no Origin; what it shows is its own.
    """
    headers: dict[bytes, list[bytes]] = {}
    for name, value in scope["headers"]:
        headers.setdefault(name, []).append(value)
    origins = [each.decode("latin-1") for each in headers.get(b"origin", ())]
    if not origins:
        return
    host = b"".join(headers.get(b"host", ())).decode("latin-1").lower()
    for origin in origins:
        own = origin.lower() in {f"http://{host}", f"https://{host}"} and bool(
            urlsplit(origin).netloc
        )
        if not own and origin not in allowed:
            raise Problem(
                403,
                "origin_not_allowed",
                f"pages of {origin[:200]!r} may not connect; AURORA_ALLOWED_ORIGINS names those"
                " that may",
            )


def needs(scope: Scope) -> Any:
    """For a route's `dependencies`: only keys with this scope."""
    return Security(_permitted, scopes=[scope.value])


def scope_of(route: Any) -> str | None:
    """The scope that a route needs; None for one that names none."""
    for each in getattr(route, "dependencies", ()):
        if getattr(each, "dependency", None) is _permitted:
            return str(each.scopes[0])
    return None


async def _permitted(
    connection: HTTPConnection, scopes: SecurityScopes, _shown: Annotated[Any, Security(_bearer)]
) -> None:
    key = key_of(connection)
    missing = [scope for scope in scopes.scopes if not key.allows(scope)]
    if missing:
        raise Problem(
            403,
            "forbidden",
            f"this needs the scope {missing[0]}; the key {key.id} has"
            f" {', '.join(sorted(key.scopes))}",
            more={"missing_scope": missing[0]},
        )


def key_of(connection: HTTPConnection) -> ApiKey:
    """The key that the middleware let in."""
    key: ApiKey = connection.state.key
    return key


async def _actor(request: Request) -> str:
    return f"key:{key_of(request).id}"


Actor = Annotated[str, Depends(_actor)]  # who is written into the audit trail


def _digest(given: str) -> bytes:
    return hashlib.sha256(given.encode("utf-8", "replace")).digest()


def _unauthenticated(detail: str, error: str | None) -> Problem:
    challenge = 'Bearer realm="aurora"' + (f', error="{error}"' if error else "")
    return Problem(401, "unauthenticated", detail, headers={"WWW-Authenticate": challenge})
