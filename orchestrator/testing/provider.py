"""A model provider for tests: an HTTP server in OpenAI's form that replies as a script says.

async with ScriptedProvider([Status(429, retry_after=1), Answer("hello")]) as provider:
    model = OpenAIChatModel("any", provider=OpenAIProvider(base_url=provider.url, api_key="any"))
    ...
assert provider.count.answers == 1

It listens on 127.0.0.1 only. `python -m orchestrator.testing` runs it as a process of its own.
"""

import asyncio
import inspect
import socket
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from orchestrator.testing.obedient import obedient
from orchestrator.testing.replies import (
    REPLIES,
    Answer,
    Call,
    Disconnect,
    Hang,
    Malformed,
    Refused,
    Reply,
    Status,
)
from orchestrator.testing.request import InvalidRequest, Request, read
from orchestrator.testing.rules import (
    ContextTooLong,
    Outage,
    RateLimit,
    Rule,
    UnknownModel,
    WrongKey,
)
from orchestrator.testing.sending import Seen, Sending

__all__ = [
    "Answer",
    "Call",
    "ContextTooLong",
    "Count",
    "Disconnect",
    "Hang",
    "Malformed",
    "Outage",
    "RateLimit",
    "Refused",
    "Reply",
    "Request",
    "Script",
    "ScriptedProvider",
    "Seen",
    "Status",
    "UnknownModel",
    "WrongKey",
    "obedient",
]

# One reply for every request, one for each in turn, or whatever a function of the request says.
Script = Reply | Sequence[Reply] | Callable[[Request], Reply | Awaitable[Reply]]

LARGEST_BODY = 16 * 2**20  # bytes; a conversation of the longest contexts is a few megabytes


@dataclass(frozen=True, slots=True)
class Count:
    """The server's own sums, of all requests that are over."""

    requests: int = 0
    by_status: Mapping[str, int] = field(default_factory=dict)  # "200", "429", "closed"
    answers: int = 0  # sent whole: handed to a connection that stood. So are the tokens
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    tool_calls: int = 0  # without those of an output tool

    @property
    def tokens(self) -> int:
        """In and out."""
        return self.input_tokens + self.output_tokens


class ScriptedProvider:
    """The server. Start and stop it with `async with`, in the loop that its clients run in too.

    `rules` are asked first, in their order; what passes them goes to the script. A list that is
    used up refuses with 400. A function that raises is a 500, and its error is raised again at the
    end of `async with`. `keep` bounds `seen`; `count` is of all. Raises TypeError for what is no
    script, OSError for a port that is in use.
    """

    def __init__(
        self,
        script: Script,
        *,
        rules: Sequence[Rule] = (),
        port: int = 0,
        keep: int = 10_000,
    ) -> None:
        self.seen: deque[Seen] = deque(maxlen=keep)
        self.port = port
        self._script = _turns(script)
        self._checks = [each.begin() for each in rules]
        self._sums: Counter[str] = Counter()
        self._by_status: Counter[str] = Counter()
        self._number = 0
        self._began = 0.0
        self._failed: Exception | None = None
        self._listener: socket.socket | None = None
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._application(),
                host="127.0.0.1",
                port=port,
                http="h11",
                ws="none",
                log_config=None,
                access_log=False,
                lifespan="off",
                # A client's pool keeps its connections for longer than any test takes.
                timeout_keep_alive=600,
            )
        )

    @property
    def url(self) -> str:
        """For a client's `base_url`."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def count(self) -> Count:
        """What it has done so far."""
        return Count(by_status=dict(self._by_status), **self._sums)

    @property
    def under_way(self) -> int:
        """Requests that have come and are not over."""
        return self._number - self._sums["requests"]

    @property
    def requests(self) -> list[Request]:
        """Those of `seen` that could be read, in the order in which they ended."""
        return [each.request for each in self.seen if each.request is not None]

    async def __aenter__(self) -> Self:
        config = self._server.config
        if not config.loaded:
            config.load()
        self._server.lifespan = config.lifespan_class(config)
        listener = socket.create_server(("127.0.0.1", self.port), backlog=2048)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port = listener.getsockname()[1]
        self._began = time.monotonic()
        await self._server.startup(sockets=[listener])
        self._listener = listener
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()
        await self._server.shutdown(sockets=[self._listener] if self._listener else None)
        if self._failed is not None and error is None:
            raise self._failed

    def _application(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/chat/completions", self._complete, methods=["POST"]),
                Route("/v1/models", self._models),
                Route("/count", self._counted),
                Route("/{path:path}", _nowhere, methods=["GET", "POST", "PUT", "DELETE"]),
            ]
        )

    async def _models(self, _: HttpRequest) -> Response:
        model = {"id": "scripted", "object": "model", "created": 0, "owned_by": "aurora"}
        return JSONResponse({"object": "list", "data": [model]})

    async def _counted(self, _: HttpRequest) -> Response:
        count = self.count
        return JSONResponse({name: getattr(count, name) for name in Count.__dataclass_fields__})

    async def _complete(self, asked: HttpRequest) -> Response:
        self._number += 1
        at = time.monotonic() - self._began
        request: Request | None = None
        reply: Reply
        headers: Mapping[str, str] = {}
        try:
            request = read(
                await _body(asked),
                number=self._number,
                at=at,
                authorization=asked.headers.get("authorization"),
            )
            reply, headers = await self._reply(request)
        except InvalidRequest as error:
            reply = Status(400, message=f"scripted provider: {error}")
        except ClientDisconnect:
            reply = Disconnect()
        return Sending(reply, request, headers=headers, transports=self._transport, note=self._note)

    async def _reply(self, request: Request) -> tuple[Reply, dict[str, str]]:
        headers: dict[str, str] = {}
        for check in self._checks:
            reply, said = check(request)
            headers |= said
            if reply is not None:
                return reply, headers
        return await self._scripted(request), headers

    async def _scripted(self, request: Request) -> Reply:
        try:
            # What a user's function gives is whatever it is.
            found: Any = self._script(request)
            reply = await found if inspect.isawaitable(found) else found
            if not isinstance(reply, REPLIES):
                raise TypeError(f"the script gave {reply!r}, which is none of {_names()}")  # noqa: TRY301
        except Exception as error:  # noqa: BLE001 - raised again at the end of `async with`
            self._failed = self._failed or error
            return Status(500, message=f"scripted provider: its script failed: {error!r}")
        return reply

    def _transport(self, client: tuple[str, int]) -> asyncio.Transport | None:
        """Of the connection from there, while it stands."""
        for each in self._server.server_state.connections:
            if each.client == client:  # type: ignore[union-attr] # those of HTTP have one
                return each.transport
        return None

    def _note(self, seen: Seen) -> None:
        """One request is over."""
        self.seen.append(seen)
        self._by_status["closed" if seen.status is None else str(seen.status)] += 1
        self._sums["requests"] += 1
        if (tokens := seen.tokens) is not None:
            self._sums["answers"] += 1
            self._sums["input_tokens"] += tokens.input
            self._sums["output_tokens"] += tokens.output
            self._sums["cached_tokens"] += tokens.cached
            self._sums["tool_calls"] += tokens.tool_calls


async def _body(asked: HttpRequest) -> bytes:
    raw = bytearray()
    async for piece in asked.stream():
        raw += piece
        if len(raw) > LARGEST_BODY:
            raise InvalidRequest(f"the body is over {LARGEST_BODY} bytes")
    return bytes(raw)


async def _nowhere(asked: HttpRequest) -> Response:
    told = f"scripted provider: there is no {asked.method} {asked.url.path}"
    if asked.url.path.endswith("/responses"):
        told += "; it speaks chat completions: in pydantic-ai openai-chat:NAME, not openai:NAME"
    else:
        told += "; there is POST /v1/chat/completions, GET /v1/models and GET /count"
    body = {"message": told, "type": "invalid_request_error", "param": None, "code": None}
    return JSONResponse({"error": body}, status_code=404)


def _turns(script: Any) -> Callable[[Request], Reply | Awaitable[Reply]]:
    """Every script as a function of the request."""
    if isinstance(script, REPLIES):
        return lambda _: script
    if callable(script):
        found: Callable[[Request], Reply | Awaitable[Reply]] = script
        return found
    if isinstance(script, str) or not isinstance(script, Sequence):
        raise TypeError(f"a script is a reply, a list of them or a function, not {script!r}")
    for at, each in enumerate(script):
        if not isinstance(each, REPLIES):
            raise TypeError(f"reply {at} of the script is {each!r}, which is none of {_names()}")
    replies = iter(script)
    told = f"scripted provider: its script of {len(script)} replies is used up"
    return lambda _: next(replies, Status(400, message=told, error_code="script_used_up"))


def _names() -> str:
    return ", ".join(each.__name__ for each in REPLIES)
