"""/audit: who did what to which object. Looking is written down too, so it does not refresh."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Query
from starlette.responses import Response

from orchestrator.api import paging
from orchestrator.api.auth import Actor, needs
from orchestrator.api.paging import Cursor, Moment, Text
from orchestrator.dashboard.forms import Blank
from orchestrator.dashboard.rendering import Shown
from orchestrator.dashboard.routing import Reading, pages
from orchestrator.dashboard.window import OPTIONS, Window
from orchestrator.db.auditing import read_audit
from orchestrator.db.keys import Scope
from orchestrator.db.models import AuditRow
from orchestrator.errors import TookTooLong

router = pages()

PATH = "/audit"
PAGE = 50  # rows
KINDS = (
    ("", "Everything"),
    ("task.*", "Tasks"),
    ("schedule.*", "Schedules"),
    ("dead_letter.*", "Dead letters"),
    ("alert.*", "Alerts"),
    ("key.*", "Keys"),
    ("session.*", "Sign-ins"),
    ("audit.*", "Looks at this page"),
)
# An object's kind -> its page, and the scope that opens it.
PAGES = {
    "task": ("/tasks/", Scope.TASKS_READ),
    "schedule": ("/schedules/", Scope.SCHEDULES_READ),
    "dead_letter": ("/dead-letters/", Scope.DEAD_READ),
    "alert": ("/alerts/", Scope.ALERTS_READ),
}
TOO_WIDE = (
    "A text is searched for row by row, so it needs a time: choose the last 30 days or less, or add"
    " since= to the address."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The filters as the address has them."""

    object_type: str | None
    object_id: str | None
    action: str | None
    actor: str | None
    contains: str | None
    window: Window
    since: datetime | None
    until: datetime | None

    @property
    def query(self) -> dict[str, Any]:
        """As links say it; what is the default is left out."""
        return {
            "object_type": self.object_type, "object_id": self.object_id, "action": self.action,
            "actor": self.actor, "contains": self.contains,
            "window": None if self.window is Window.DAY else self.window.value,
            "since": self.since, "until": self.until,
        }  # fmt: skip

    def rows(self, now: datetime) -> dict[str, Any]:
        """As the record takes it."""
        given = {name: said for name, said in self.query.items() if name != "window"}
        return given | {"since": self.since or self.window.since(now)}

    @property
    def is_too_wide(self) -> bool:
        """True when it would read the whole trail."""
        return self.contains is not None and self.since is None and self.window is Window.ALL


async def _wanted(
    *,
    object_type: Annotated[Text | None, Blank, Query()] = None,
    object_id: Annotated[Text | None, Blank, Query()] = None,
    action: Annotated[Text | None, Blank, Query()] = None,
    actor: Annotated[Text | None, Blank, Query()] = None,
    contains: Annotated[Text | None, Blank, Query()] = None,
    window: Annotated[Window, Query()] = Window.DAY,
    since: Annotated[Moment | None, Blank, Query()] = None,
    until: Annotated[Moment | None, Blank, Query()] = None,
) -> Wanted:
    return Wanted(
        object_type=object_type, object_id=object_id, action=action, actor=actor,
        contains=contains, window=window, since=since, until=until,
    )  # fmt: skip


@router.get(PATH, dependencies=[needs(Scope.AUDIT_READ)])
async def list_audit(
    wanted: Annotated[Wanted, Depends(_wanted)],
    reading: Reading,
    actor_reading: Actor,
    show: Shown,
    cursor: Cursor = None,
) -> Response:
    """Events, the newest first; one more is written by this."""
    common: dict[str, Any] = {
        "wanted": wanted, "query": wanted.query, "windows": OPTIONS, "kinds": KINDS,
        "is_first": cursor is None,
    }  # fmt: skip
    if wanted.is_too_wide:
        return show(
            "audit.html",
            status=422,
            rows=[],
            next_cursor=None,
            narrowed=False,
            wrong=TOO_WIDE,
            **common,
        )
    now = datetime.now(UTC)
    filters, after = wanted.rows(now), paging.after(cursor, wanted.query)
    narrowed = False
    try:
        page = await read_audit(reading, reader=actor_reading, **filters, after=after, limit=PAGE)
    except TookTooLong:
        # A text in a long time, or a rare act of tasks: the last day answers, and the page says so.
        narrowed, filters["since"] = True, Window.DAY.since(now)
        page = await read_audit(reading, reader=actor_reading, **filters, after=after, limit=PAGE)
    return show(
        "audit.html",
        rows=[(row, changes(row), page_of(row)) for row in page.rows],
        next_cursor=page.next and paging.cursor_of(page.next, wanted.query),
        wrong=None,
        narrowed=narrowed,
        **common,
    )


def changes(row: AuditRow) -> list[tuple[str, Any, Any]]:
    """(what, before, after) of what is not the same in both."""
    before, after = row.before or {}, row.after or {}
    names = [*after, *(name for name in before if name not in after)]
    pairs = [(name, before.get(name), after.get(name)) for name in names]
    return [(name, old, new) for name, old, new in pairs if old != new]


def page_of(row: AuditRow) -> tuple[str, Scope] | None:
    """The object's own page and the scope that opens it; None where it has none."""
    path, scope = PAGES.get(row.object_type, ("", Scope.ADMIN))
    try:
        return (path + str(UUID(row.object_id)), scope) if path else None
    except ValueError:
        return None
