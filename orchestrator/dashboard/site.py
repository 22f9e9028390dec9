"""Puts the dashboard together and in front of the API; the composition root serves the two.

Which of them answers is said by the path's first part. Whatever is not the dashboard's goes to the
API, which turns away who has no key: both are closed by default, and a cookie opens no API route.
"""

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from orchestrator.api.app import NO_TELEMETRY, create_app
from orchestrator.api.auth import KeyCache, scope_of
from orchestrator.api.metrics import Measured
from orchestrator.api.parts import ApiParts
from orchestrator.api.problems import RequestIds
from orchestrator.dashboard import failures
from orchestrator.dashboard.assets import Assets
from orchestrator.dashboard.forms import own_form
from orchestrator.dashboard.headers import SecurityHeaders
from orchestrator.dashboard.pages import (
    agents,
    alerts,
    audit,
    dead_letters,
    files,
    news,
    overview,
    schedule,
    schedules,
    sign_in,
    task,
    tasks,
    usage,
)
from orchestrator.dashboard.rendering import Rendering
from orchestrator.dashboard.sessions import SAFE, Session, WrongSignIns
from orchestrator.db import sessions
from orchestrator.db.session import Database

# A form carries an input as text in which a character may take three, and some fields beside it.
FORM_ROOM = 3

GUARDED = (
    overview.router,
    tasks.router,  # with /tasks/news, before /tasks/{task_id}
    task.router,
    alerts.router,
    news.router,
    agents.router,
    schedules.router,  # with /schedules/new, before /schedules/{schedule_id}
    schedule.router,
    usage.router,
    dead_letters.router,
    audit.router,
)
# They need no scope: who is not signed in yet has none, and anybody may leave.
OPEN = (sign_in.router, files.router)


class Site:
    """The dashboard's pages and the API behind one address."""

    def __init__(self, pages: FastAPI, api: FastAPI) -> None:
        """Store."""
        self.pages = pages
        self.api = api
        paths = (each.path for each in pages.routes if isinstance(each, APIRoute))
        self._first_parts = frozenset(path.split("/")[1] for path in paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one of the two answer."""
        ours = scope["type"] == "http" and self.is_page(scope["path"])
        chosen: ASGIApp = self.pages if ours else self.api
        await chosen(scope, receive, send)

    def is_page(self, path: str) -> bool:
        """True when the dashboard answers for this path."""
        return path.split("/")[1] in self._first_parts


def create_site(parts: ApiParts, *, reading: Database) -> Site:
    """The API with its dashboard. `reading`: whose statements are given up after 2 s.

    Raises AssertionError for a page that names no scope, and for a form that anybody could forge.
    """
    api = create_app(parts)
    return Site(_create_pages(parts, reading=reading, api=api), api)


def _create_pages(parts: ApiParts, *, reading: Database, api: FastAPI) -> FastAPI:
    app = FastAPI(
        openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False,
        telemetry=NO_TELEMETRY,
    )  # fmt: skip
    assets = Assets()
    app.state.parts = parts
    app.state.reading = reading
    app.state.assets = assets
    app.state.rendering = Rendering(assets)
    app.state.sessions = KeyCache(parts.database, look=sessions.find)
    app.state.wrong_sign_ins = WrongSignIns()
    app.state.lookout = overview.Lookout(parts, reading)
    for router in GUARDED:
        _include(app, router, guarded=True)
    for router in OPEN:
        _include(app, router, guarded=False)
    failures.install(app)
    # The last one added is the first to see a request.
    app.add_middleware(
        Session,
        sessions=app.state.sessions,
        body_limit=FORM_ROOM * parts.settings.max_payload,
    )
    app.add_middleware(SecurityHeaders)
    app.add_middleware(Measured, metrics=api.state.metrics)
    app.add_middleware(RequestIds)
    return app


def _include(app: FastAPI, router: APIRouter, *, guarded: bool) -> None:
    for route in router.routes:
        assert isinstance(route, APIRoute), f"{route} is no page"  # noqa: S101 - a mistake of ours, at start
        assert not guarded or scope_of(route), f"{route.path} names no scope"  # noqa: S101 - the same
        changes = not SAFE.issuperset(route.methods or ()) and route.path != "/sign-in"
        assert not changes or own_form in route.dependencies, f"{route.path} can be forged"  # noqa: S101 - the same
        app.router.routes.append(route)
