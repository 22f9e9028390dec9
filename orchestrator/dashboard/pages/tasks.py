"""/tasks: what ran and what failed; filters in the address, the newest first.

Rows never move under a reader: new tasks are counted in a line above the list, and only rows of
tasks that have not ended are written anew, in place.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Query
from starlette.responses import Response

from orchestrator.api import paging
from orchestrator.api.auth import needs
from orchestrator.api.paging import Cursor, Moment
from orchestrator.api.parts import Parts
from orchestrator.dashboard.forms import Blank
from orchestrator.dashboard.rendering import Shown
from orchestrator.dashboard.routing import Reading, pages
from orchestrator.dashboard.window import OPTIONS, Window
from orchestrator.db import glance, listing
from orchestrator.db.keys import Scope
from orchestrator.db.listing import After
from orchestrator.db.models import TaskRow
from orchestrator.db.session import Database
from orchestrator.errors import TookTooLong
from orchestrator.task import Name, TaskState

router = pages()

PAGE = 50  # rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The filters as the address has them."""

    state: TaskState | None
    agent: str | None
    queue: str | None
    window: Window
    since: datetime | None
    until: datetime | None

    @property
    def query(self) -> dict[str, Any]:
        """As links say it; what is the default is left out."""
        return {
            "state": self.state and self.state.value,
            "agent": self.agent,
            "queue": self.queue,
            "window": None if self.window is Window.DAY else self.window.value,
            "since": self.since,
            "until": self.until,
        }

    def rows(self, now: datetime) -> dict[str, Any]:
        """As the lists of the record take it."""
        return {
            "state": self.state and self.state.value,
            "agent": self.agent,
            "queue": self.queue,
            "since": self.since or self.window.since(now),
            "until": self.until,
        }


async def _wanted(
    *,
    state: Annotated[TaskState | None, Blank, Query()] = None,
    agent: Annotated[Name | None, Blank, Query()] = None,
    queue: Annotated[Name | None, Blank, Query()] = None,
    window: Annotated[Window, Query()] = Window.DAY,
    since: Annotated[Moment | None, Blank, Query()] = None,
    until: Annotated[Moment | None, Blank, Query()] = None,
) -> Wanted:
    return Wanted(state=state, agent=agent, queue=queue, window=window, since=since, until=until)


Filters = Annotated[Wanted, Depends(_wanted)]


@router.get("/tasks", dependencies=[needs(Scope.TASKS_READ)])
async def list_tasks(
    wanted: Filters, parts: Parts, reading: Reading, show: Shown, cursor: Cursor = None
) -> Response:
    """One page of the list, with how many there are in each state."""
    now = datetime.now(UTC)
    filters, after = wanted.rows(now), paging.after(cursor, wanted.query)
    narrowed, counting = False, asyncio.create_task(_counts(reading, filters))
    try:
        page = await listing.tasks(reading, **filters, after=after, limit=PAGE)
    except TookTooLong:
        # What is asked for is rare in a long time: the last day answers, and the page says so.
        narrowed, filters = True, filters | {"since": Window.DAY.since(now)}
        page = await listing.tasks(reading, **filters, after=after, limit=PAGE)
    finally:
        counts = await counting
    return show(
        "tasks.html",
        rows=page.rows,
        lines=await glance.lines(reading, [row.id for row in page.rows]),
        no_line=glance.NO_LINE,
        counts=counts,
        most=glance.MOST_COUNTED,
        states=list(TaskState),
        agents=[("", "All agents"), *((each.name, each.name) for each in parts.registry)],
        queues=[("", "All queues"), *((each, each) for each in parts.registry.queues)],
        windows=OPTIONS,
        wanted=wanted,
        query=wanted.query,
        next_cursor=page.next and paging.cursor_of(page.next, wanted.query),
        is_first=cursor is None,
        narrowed=narrowed,
        newest=paging.cursor_of(_newest(page.rows, now), wanted.query),
        unended=_unended(page.rows),
    )


@router.get("/tasks/news", dependencies=[needs(Scope.TASKS_READ)])
async def read_news(
    wanted: Filters,
    reading: Reading,
    show: Shown,
    newest: Annotated[str, Query(max_length=1000)],
    unended: Annotated[list[UUID] | None, Query(alias="open", max_length=PAGE)] = None,
) -> Response:
    """For a list that is open: how many are newer, and its unfinished rows as they are now."""
    place = paging.after(newest, wanted.query)
    filters = wanted.rows(datetime.now(UTC))
    new = await glance.tasks_after(reading, place, **filters) if place else 0
    rows = await glance.tasks_of(reading, [str(each) for each in unended or ()])
    return show(
        "tasks_news.html",
        rows=rows,
        lines=await glance.lines(reading, [row.id for row in rows]),
        no_line=glance.NO_LINE,
        new=new,
        newest=newest,
        unended=_unended(rows),
        query=wanted.query,
        is_first=True,
    )


async def _counts(reading: Database, filters: dict[str, Any]) -> Mapping[TaskState, int] | None:
    """State -> tasks under the other filters; None where counting took too long."""
    without_state = {name: value for name, value in filters.items() if name != "state"}
    try:
        return await glance.tasks_by_state(reading, **without_state)
    except TookTooLong:
        return None


def _newest(rows: list[TaskRow], now: datetime) -> After:
    return (rows[0].created_at, rows[0].id) if rows else (now, str(UUID(int=0)))


def _unended(rows: list[TaskRow]) -> list[str]:
    return [row.id for row in rows if not TaskState(row.state).is_terminal]
