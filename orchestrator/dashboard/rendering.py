"""Templates to answers: every page is made here, so escaping is decided here once.

A value that a template prints is text: markup in it is escaped, and what cannot be seen in it is
named (`text.visible`). No template switches that off.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Depends, Request
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import HTMLResponse, Response

from orchestrator.dashboard import text
from orchestrator.dashboard.assets import Assets
from orchestrator.dashboard.forms import token_of
from orchestrator.db.keys import ApiKey, Scope


@dataclass(frozen=True, slots=True)
class Place:
    """A page of the navigation, and the scope without which it is not shown."""

    name: str
    path: str
    scope: Scope


NAVIGATION = (
    Place("Overview", "/", Scope.TASKS_READ),
    Place("Tasks", "/tasks", Scope.TASKS_READ),
    Place("Alerts", "/alerts", Scope.ALERTS_READ),
    Place("Agents", "/agents", Scope.AGENTS_READ),
    Place("Schedules", "/schedules", Scope.SCHEDULES_READ),
    Place("Usage", "/usage", Scope.TASKS_READ),
    Place("Dead letters", "/dead-letters", Scope.DEAD_READ),
    Place("Audit", "/audit", Scope.AUDIT_READ),
)


class Rendering:
    """The templates of one site."""

    def __init__(self, assets: Assets) -> None:
        """Store; a template is compiled when it is first shown."""
        self._environment = Environment(
            loader=PackageLoader("orchestrator.dashboard"),
            autoescape=True,
            finalize=_printed,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals |= {"asset": assets.url, "address": address}
        self._environment.filters |= {
            "absolute": text.absolute,
            "ago": text.ago,
            "as_json": text.as_json,
            "brief": text.brief,
            "counted": text.counted,
            "dollars": text.dollars,
            "duration": text.duration,
            "exactly": text.exactly,
        }

    def answer(
        self, request: Request, template: str, *, status: int = 200, **context: Any
    ) -> Response:
        """The page as the answer to this request, with what every page needs."""
        key: ApiKey | None = getattr(request.state, "key", None)
        token: str | None = getattr(request.state, "session", None)
        body = self._environment.get_template(template).render(
            key=key,
            allows=key.allows if key is not None else lambda _scope: False,
            csrf=token_of(token) if token is not None else "",
            here=request.url.path,
            navigation=[each for each in NAVIGATION if key is not None and key.allows(each.scope)],
            now=datetime.now(UTC),
            **context,
        )
        return HTMLResponse(body, status)


class Show:
    """Renders for one request; a page's route asks for it."""

    def __init__(self, request: Request) -> None:
        """Store."""
        self._request = request
        self._rendering: Rendering = request.app.state.rendering

    def __call__(self, template: str, *, status: int = 200, **context: Any) -> Response:
        """The template as this request's answer."""
        return self._rendering.answer(self._request, template, status=status, **context)


async def _show(request: Request) -> Show:
    return Show(request)


Shown = Annotated[Show, Depends(_show)]


def address(path: str, query: Mapping[str, Any] | None = None, **changes: Any) -> str:
    """A link of our own: the path, and of the query what has a value."""
    wanted = {**(query or {}), **changes}
    said = {name: _plain(value) for name, value in wanted.items() if value not in (None, "", [])}
    return f"{path}?{urlencode(said, doseq=True)}" if said else path


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def _printed(value: Any) -> Any:
    if isinstance(value, Markup):  # what a template of ours said
        return value
    return text.visible(value) if isinstance(value, str) else value
