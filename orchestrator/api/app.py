"""Puts the application together from its parts; the composition root calls this and serves it."""

from importlib.metadata import version
from typing import TYPE_CHECKING

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute, APIWebSocketRoute

from orchestrator.api import problems
from orchestrator.api.auth import Authentication, KeyCache, scope_of
from orchestrator.api.metrics import Measured, Metrics
from orchestrator.api.parts import ApiParts
from orchestrator.api.problems import RequestIds
from orchestrator.api.routes import (
    agents,
    alerts,
    audit,
    dead_letters,
    health,
    investigations,
    live,
    schedules,
    tasks,
    usage,
)
from orchestrator.api.routes.health import Readiness
from orchestrator.db.keys import find
from orchestrator.streams.asyncapi import asyncapi

if TYPE_CHECKING:
    from fastapi.telemetry import TelemetryConfig  # of newer versions alone

# What is called by a name (`/tasks/bulk`, `/alerts/live`) stands before what is called by an id.
GUARDED = (
    live.tasks,
    live.alerts,
    tasks.bulk,
    tasks.router,
    agents.router,
    schedules.router,
    dead_letters.router,
    audit.router,
    alerts.bulk,
    alerts.router,
    investigations.router,
    usage.router,
)

# FastAPI's own spans are made for whoever knocks, and have the query in them; ours: `api.traced`.
NO_TELEMETRY: "TelemetryConfig" = {
    "tracing": False, "metrics": False, "logs": False, "auto_configure": False,
}  # fmt: skip


def create_app(parts: ApiParts) -> FastAPI:
    """The application. It neither starts nor closes its parts, and reads no environment.

    Raises AssertionError for a route that names no scope: it would be open to every key.
    """
    app = FastAPI(
        title="Aurora",
        summary="Runs AI agents the way Celery runs tasks.",
        version=version("aurora-orchestrator"),
        openapi_url="/openapi.json",
        # The pages would fetch scripts from elsewhere; the document is enough.
        docs_url=None,
        redoc_url=None,
        # A redirect would send a body, and with it a key, a second time.
        redirect_slashes=False,
        telemetry=NO_TELEMETRY,
    )
    app.state.parts = parts
    app.state.metrics = Metrics(parts)
    app.state.keys_by_id = KeyCache(parts.database, look=find)
    app.state.readiness = Readiness(parts)
    for router in GUARDED:
        _include(app, router, guarded=True)
    _include(app, health.router, guarded=False)
    app.add_route("/asyncapi.json", _streams, include_in_schema=False)
    problems.install(app)
    if parts.tracing is not None:
        from orchestrator.api.traced import Traced  # noqa: PLC0415 - loads OpenTelemetry

        app.add_middleware(Traced, tracing=parts.tracing)
    # The last one added is the first to see a request.
    app.add_middleware(
        Authentication,
        keys=KeyCache(parts.database),
        keys_by_id=app.state.keys_by_id,
        streams=parts.streams,
        allowed_origins=parts.settings.allowed_origins,
    )
    app.add_middleware(Measured, metrics=app.state.metrics)
    app.add_middleware(RequestIds)
    return app


async def _streams(request: Request) -> Response:
    """The streams' document: for any key, as OpenAPI's is."""
    parts: ApiParts = request.app.state.parts
    return JSONResponse(asyncapi(parts.streams.keys, version=request.app.version))


def _include(app: FastAPI, router: APIRouter, *, guarded: bool) -> None:
    for route in router.routes:
        assert isinstance(route, APIRoute | APIWebSocketRoute), f"{route} is no API route"  # noqa: S101 - a mistake of ours, at start
        assert not guarded or scope_of(route), f"{route.path} names no scope"  # noqa: S101 - the same
        # The routes themselves rather than `include_router`: it would wrap them, and the tests
        # that walk all routes would have to know FastAPI's wrapping.
        app.router.routes.append(route)
