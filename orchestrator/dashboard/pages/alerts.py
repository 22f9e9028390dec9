"""/alerts: what sensors and machines report, live; who sees to it, and the tasks it became."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Form, Query, Request
from starlette.responses import RedirectResponse, Response

from orchestrator.alert import AlertKind, Severity
from orchestrator.api import paging
from orchestrator.api.auth import Actor, needs
from orchestrator.api.paging import Cursor, Moment, Text
from orchestrator.api.parts import Parts
from orchestrator.dashboard.forms import Blank, inside, own_form
from orchestrator.dashboard.rendering import Shown
from orchestrator.dashboard.routing import Reading, pages
from orchestrator.dashboard.window import OPTIONS, Window
from orchestrator.db import acknowledging, glance, listing
from orchestrator.db.acknowledging import AlertNotFound
from orchestrator.db.keys import Scope
from orchestrator.db.listing import After
from orchestrator.db.models import AlertRow
from orchestrator.db.session import Database
from orchestrator.errors import TookTooLong

router = pages()

PAGE = 50  # rows
STORIES = 10  # investigations that one alert's page names; each rule has one of it at most
LATE = timedelta(minutes=1)  # an alert that is stored so long after its arrival shows by itself
NEWEST = "X-Newest"  # on an answer with new rows: where to go on

Ids = Annotated[list[UUID], Form(alias="id", max_length=PAGE)]


class Acknowledged(StrEnum):
    """As the address says it."""

    YES = "yes"
    NO = "no"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The filters as the address has them."""

    severity: Severity | None
    kind: AlertKind | None
    address: str | None
    signature: str | None
    acknowledged: Acknowledged | None
    investigation_id: UUID | None
    window: Window
    since: datetime | None
    until: datetime | None

    @property
    def query(self) -> dict[str, Any]:
        """As links say it; what is the default is left out."""
        return {
            "severity": self.severity and self.severity.value,
            "kind": self.kind and self.kind.value,
            "address": self.address,
            "signature": self.signature,
            "acknowledged": self.acknowledged and self.acknowledged.value,
            "investigation_id": self.investigation_id and str(self.investigation_id),
            "window": None if self.window is Window.DAY else self.window.value,
            "since": self.since,
            "until": self.until,
        }

    def rows(self, now: datetime) -> dict[str, Any]:
        """As the lists of the record take it."""
        return {
            "severity": self.severity and self.severity.value,
            "kind": self.kind and self.kind.value,
            "address": self.address,
            "signature": self.signature,
            "acknowledged": self.acknowledged and self.acknowledged is Acknowledged.YES,
            "investigation_id": self.investigation_id and str(self.investigation_id),
            "since": self.since or self.window.since(now),
            "until": self.until,
        }


async def _wanted(
    *,
    severity: Annotated[Severity | None, Blank, Query()] = None,
    kind: Annotated[AlertKind | None, Blank, Query()] = None,
    address: Annotated[Text | None, Blank, Query()] = None,
    signature: Annotated[Text | None, Blank, Query()] = None,
    acknowledged: Annotated[Acknowledged | None, Blank, Query()] = None,
    investigation_id: Annotated[UUID | None, Blank, Query()] = None,
    window: Annotated[Window, Query()] = Window.DAY,
    since: Annotated[Moment | None, Blank, Query()] = None,
    until: Annotated[Moment | None, Blank, Query()] = None,
) -> Wanted:
    return Wanted(
        severity=severity, kind=kind, address=address, signature=signature,
        acknowledged=acknowledged, investigation_id=investigation_id, window=window, since=since,
        until=until,
    )  # fmt: skip


Filters = Annotated[Wanted, Depends(_wanted)]


@router.get("/alerts", dependencies=[needs(Scope.ALERTS_READ)])
async def list_alerts(
    wanted: Filters, reading: Reading, show: Shown, cursor: Cursor = None
) -> Response:
    """One page of the list."""
    now = datetime.now(UTC)
    filters, after = wanted.rows(now), paging.after(cursor, wanted.query)
    narrowed, counting = False, asyncio.create_task(_counts(reading, filters))
    try:
        page = await listing.alerts(reading, **filters, after=after, limit=PAGE)
    except TookTooLong:
        narrowed, filters = True, filters | {"since": Window.DAY.since(now)}
        page = await listing.alerts(reading, **filters, after=after, limit=PAGE)
    finally:
        counts = await counting
    return show(
        "alerts.html",
        rows=page.rows,
        counts=counts,
        most=glance.MOST_COUNTED,
        severities=list(reversed(Severity)),
        kinds=[("", "All kinds"), ("network", "Network"), ("cps", "Machines")],
        acknowledgements=[("", "Any"), ("no", "Not yet"), ("yes", "Acknowledged")],
        windows=OPTIONS,
        wanted=wanted,
        query=wanted.query,
        next_cursor=page.next and paging.cursor_of(page.next, wanted.query),
        is_first=cursor is None,
        narrowed=narrowed,
        newest=paging.cursor_of(_newest(page.rows, now), wanted.query),
    )


@router.get("/alerts/news", dependencies=[needs(Scope.ALERTS_READ)])
async def read_news(
    wanted: Filters,
    reading: Reading,
    show: Shown,
    newest: Annotated[str, Query(max_length=1000)],
) -> Response:
    """For a list that is open: the rows of what has come since, at most a page of them.

    With those of a while before, which the page may have already: an alert that came earlier may be
    stored later, behind a critical one or by another handler.
    """
    now, place = datetime.now(UTC), paging.after(newest, wanted.query)
    filters = wanted.rows(now)
    if place is not None:
        filters["since"] = max(place[0] - LATE, wanted.since or place[0] - LATE)
    page = await listing.alerts(reading, **filters, limit=PAGE)
    answer = show("alerts_news.html", rows=page.rows, wanted=wanted, query=wanted.query)
    last = max([_newest(page.rows, now), place]) if page.rows and place else place
    answer.headers[NEWEST] = paging.cursor_of(last or (now, ""), wanted.query)
    return answer


@router.post("/alerts/acknowledge", dependencies=[needs(Scope.ALERTS_ACKNOWLEDGE), own_form])
async def acknowledge_alerts(
    *,
    request: Request,
    ids: Ids,
    parts: Parts,
    actor: Actor,
    show: Shown,
    back: Annotated[str, Form()] = "/alerts",
) -> Response:
    """Note that this person sees to them; back to where the button was."""
    rows = await acknowledging.acknowledge(parts.database, _said(ids), actor=actor)
    if request.headers.get("hx-request"):
        return show("alerts_rows.html", rows=rows, oob=True)
    return RedirectResponse(inside(back), 303)


@router.post("/alerts/unacknowledge", dependencies=[needs(Scope.ALERTS_ACKNOWLEDGE), own_form])
async def unacknowledge_alerts(
    ids: Ids, parts: Parts, actor: Actor, back: Annotated[str, Form()] = "/alerts"
) -> Response:
    """Take it back."""
    await acknowledging.unacknowledge(parts.database, _said(ids), actor=actor)
    return RedirectResponse(inside(back), 303)


@router.get("/alerts/{alert_id}", dependencies=[needs(Scope.ALERTS_READ)])
async def show_alert(alert_id: UUID, reading: Reading, show: Shown) -> Response:
    """One alert with all that its sensor said, the stories it is part of, and their tasks."""
    found = await listing.alert(reading, str(alert_id))
    if found is None:
        raise AlertNotFound([str(alert_id)])
    stories = (await listing.investigations(reading, alert_id=found.id, limit=STORIES)).rows
    task_ids = [*found.task_ids, *(each for story in stories for each in story.task_ids)]
    tasks = await glance.tasks_of(reading, task_ids[:PAGE])
    return show(
        "alert.html",
        alert=found,
        stories=stories,
        tasks=tasks,
        lines=await glance.lines(reading, [task.id for task in tasks]),
        no_line=glance.NO_LINE,
    )


async def _counts(reading: Database, filters: dict[str, Any]) -> Mapping[Severity, int] | None:
    """Severity -> alerts of this kind and time; None where counting took too long."""
    try:
        return await glance.alerts_by_severity(
            reading,
            kind=filters["kind"],
            acknowledged=filters["acknowledged"],
            since=filters["since"],
            until=filters["until"],
        )
    except TookTooLong:
        return None


def _newest(rows: list[AlertRow], now: datetime) -> After:
    return (rows[0].received_at, rows[0].id) if rows else (now, str(UUID(int=0)))


def _said(ids: list[UUID]) -> list[str]:
    return [str(each) for each in ids]
