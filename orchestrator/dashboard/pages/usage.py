"""/usage: what calls of models cost, by agent and model, and by day."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Depends, Query
from starlette.responses import Response

from orchestrator.api.auth import needs
from orchestrator.api.paging import Moment, Text
from orchestrator.api.parts import Parts
from orchestrator.dashboard.forms import Blank
from orchestrator.dashboard.rendering import Shown
from orchestrator.dashboard.routing import Reading, pages
from orchestrator.dashboard.window import OPTIONS, Window
from orchestrator.db.keys import Scope
from orchestrator.db.session import Database
from orchestrator.db.usage import By, Spending, spending
from orchestrator.errors import TookTooLong

router = pages()

PATH = "/usage"
PAIRS, DAYS = 100, 92  # rows of each table; the sums count the others, too


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The filters as the address has them."""

    agent: str | None
    model: str | None
    window: Window
    since: datetime | None
    until: datetime | None

    @property
    def query(self) -> dict[str, Any]:
        """As links say it; what is the default is left out."""
        return {
            "agent": self.agent, "model": self.model,
            "window": None if self.window is Window.WEEK else self.window.value,
            "since": self.since, "until": self.until,
        }  # fmt: skip

    def calls(self, now: datetime) -> dict[str, Any]:
        """As the record takes it."""
        return {
            "agent": self.agent, "model": self.model,
            "since": self.since or self.window.since(now), "until": self.until,
        }  # fmt: skip


async def _wanted(
    *,
    agent: Annotated[Text | None, Blank, Query()] = None,
    model: Annotated[Text | None, Blank, Query()] = None,
    window: Annotated[Window, Query()] = Window.WEEK,
    since: Annotated[Moment | None, Blank, Query()] = None,
    until: Annotated[Moment | None, Blank, Query()] = None,
) -> Wanted:
    return Wanted(agent=agent, model=model, window=window, since=since, until=until)


@router.get(PATH, dependencies=[needs(Scope.TASKS_READ)])
async def show_usage(
    wanted: Annotated[Wanted, Depends(_wanted)], parts: Parts, reading: Reading, show: Shown
) -> Response:
    """The same calls twice: by agent and model, and by day."""
    now = datetime.now(UTC)
    filters, narrowed = wanted.calls(now), False
    try:
        pairs, days = await _both(reading, filters)
    except TookTooLong:
        # Millions of calls in a long time: the last day answers, and the page says so.
        narrowed, filters["since"] = True, Window.DAY.since(now)
        pairs, days = await _both(reading, filters)
    known = sorted({each.name for each in parts.registry} | {wanted.agent or ""} - {""})
    return show(
        "usage.html",
        wanted=wanted,
        query=wanted.query,
        windows=OPTIONS,
        agents=[("", "All agents"), *((each, each) for each in known)],
        pairs=pairs,
        days=days,
        most=max((each.usage.tokens for each in days.groups), default=0) or 1,
        narrowed=narrowed,
    )


async def _both(reading: Database, filters: Mapping[str, Any]) -> tuple[Spending, Spending]:
    return (
        await spending(reading, by=(By.AGENT, By.MODEL), limit=PAIRS, **filters),
        await spending(reading, by=(By.DAY,), limit=DAYS, **filters),
    )
