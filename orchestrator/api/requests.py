"""How a request is read: a body within its limit, JSON by the wire's rules, known parameters only.

FastAPI would read any body to its end and parse it with the standard library; here the same
parser reads HTTP and the streams, so one door takes what the other does.
"""

import json
from collections.abc import Awaitable, Callable, Iterator
from difflib import get_close_matches
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.requests import HTTPConnection

from orchestrator.api.parts import ApiParts
from orchestrator.api.problems import MEDIA_TYPE, Problem
from orchestrator.errors import PayloadTooLarge

PROBLEM = {
    "description": "RFC 9457; `code` is for programs, `detail` for people",
    "content": {MEDIA_TYPE: {"schema": {"type": "object"}}},
}
BULK_LIMIT = 4 * 1024 * 1024  # bytes of a body that carries many


class CarefulRoute(APIRoute):
    """A route whose body may be as large as one message (`AURORA_MAX_PAYLOAD`)."""

    def limit(self, parts: ApiParts) -> int:
        """The most bytes that its body may have."""
        return parts.settings.max_payload

    def get_route_handler(self) -> Callable[[Request], Awaitable[Any]]:  # type: ignore[override] # FastAPI's own is a Coroutine; ours is one too
        """FastAPI's hook for what comes before its own reading."""
        handler = super().get_route_handler()
        # Path parameters are not in the query, so that `?task_id=` is unknown as well.
        known = tuple(query_parameters(self.dependant))

        async def careful(request: Request) -> Response:
            check_parameters(request, known)
            read = _Read(request.scope, request.receive)
            if self.body_field is not None:
                await read.load(self.limit(request.app.state.parts))
            return await handler(read)

        return careful


class BulkRoute(CarefulRoute):
    """A route whose body carries many."""

    def limit(self, parts: ApiParts) -> int:
        """Four mebibytes, or one message where that is more."""
        return max(BULK_LIMIT, parts.settings.max_payload)


def guarded(prefix: str, tag: str, *, route_class: type[APIRoute] = CarefulRoute) -> APIRouter:
    """A router for the routes of one noun."""
    return APIRouter(
        prefix=prefix,
        tags=[tag],
        route_class=route_class,
        # Also keeps FastAPI from documenting its own 422.
        responses={"4XX": PROBLEM, "5XX": PROBLEM},
    )


class _Read(Request):
    """A request whose body was read and parsed before FastAPI asks."""

    async def load(self, limit: int) -> None:
        """Read and parse. Raises Problem, PayloadTooLarge."""
        self._body = await self._bounded(limit)
        if not self._body:
            return  # FastAPI says which fields are missing
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json" and not kind.endswith("+json"):
            raise Problem(
                415,
                "unsupported_media_type",
                f"the body is {kind or 'untyped'}; send Content-Type: application/json",
            )
        self._json = _parsed(self._body)

    async def json(self) -> Any:
        """What the body says."""
        return self._json

    async def _bounded(self, limit: int) -> bytes:
        said = self.headers.get("content-length", "")
        if said.isdecimal() and int(said[:19]) > limit:
            raise PayloadTooLarge(int(said[:19]), limit)
        found = bytearray()
        async for chunk in self.stream():
            found += chunk
            if len(found) > limit:
                raise PayloadTooLarge(len(found), limit)
        return bytes(found)


def _parsed(body: bytes) -> Any:
    """The wire's own rules: no NaN, no lone surrogates, at most 200 levels."""
    try:
        found = from_json(body, allow_inf_nan=False)
        # 1e400 is read as infinity, which JSON cannot say and Postgres cannot hold.
        json.dumps(found, allow_nan=False)
    except ValueError as error:
        raise Problem(400, "invalid_json", f"the body is not JSON that we take: {error}") from error
    return found


def query_parameters(dependant: Dependant) -> Iterator[str]:
    """The names of what a route takes in the query."""
    for each in dependant.query_params:
        yield each.alias
    for inner in dependant.dependencies:
        yield from query_parameters(inner)


def check_parameters(request: HTTPConnection, known: tuple[str, ...]) -> None:
    """Raise Problem for a parameter that is not known; it names the near one."""
    for name in request.query_params:
        if name not in known:
            near = get_close_matches(name, known, n=1, cutoff=0.5)
            there = f"there are {', '.join(known)}" if known else "there are none here"
            hint = f"did you mean {near[0]!r}?" if near else there
            raise Problem(
                400,
                "unknown_parameter",
                f"unknown query parameter {name!r}; {hint}",
                errors=[{"pointer": f"/query/{name}", "message": f"unknown; {hint}"}],
            )
