"""The first page: whether all is well, and what needs somebody."""

from collections.abc import Awaitable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, TypeVar

from fastapi import Depends, Request
from starlette.responses import Response

from orchestrator.api.auth import key_of, needs
from orchestrator.api.parts import ApiParts
from orchestrator.api.recently import Recently
from orchestrator.dashboard.health import Found, judge
from orchestrator.dashboard.rendering import Shown
from orchestrator.dashboard.routing import pages
from orchestrator.db import overview
from orchestrator.db import statistics as record_statistics
from orchestrator.db.keys import Scope
from orchestrator.db.overview import Ended, Latest
from orchestrator.db.session import Database
from orchestrator.errors import Unavailable
from orchestrator.streams import statistics as stream_statistics
from orchestrator.task import TaskState

router = pages()

ValueT = TypeVar("ValueT")
KEEP = 2.0  # seconds; one look serves whoever has the page open
HOUR, SHORT = timedelta(hours=1), timedelta(minutes=5)
ATTENTION = timedelta(days=1)
ENDS = ("succeeded", "failed", "cancelled")  # of the chart; the rest counts among the failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Minute:
    """How many tasks ended within it."""

    at: datetime
    succeeded: int
    failed: int  # failed, expired, dead
    cancelled: int

    @property
    def all(self) -> int:
        return self.succeeded + self.failed + self.cancelled


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Everything on the page; None of what did not answer in time."""

    found: Found
    minutes: Sequence[Minute] | None
    narrowed: bool  # the last minutes stand for the hour
    latest: Sequence[Latest]

    @property
    def ended(self) -> int:
        return sum(each.all for each in self.minutes or ())

    @property
    def failed(self) -> int:
        return sum(each.failed for each in self.minutes or ())


class Lookout:
    """Looks at the servers and the record, at most every two seconds."""

    def __init__(self, parts: ApiParts, reading: Database) -> None:
        """Store."""
        self._parts = parts
        self._reading = reading
        self._recently = Recently(self._look, keep=KEEP)

    async def get(self) -> Look:
        """How things stand."""
        return await self._recently.get()

    async def _look(self) -> Look:
        now, reading = datetime.now(UTC), self._reading
        record = await _in_time(record_statistics.read(reading))
        streams = await _in_time(stream_statistics.read(self._parts.streams))
        since = now - ATTENTION
        found = Found(
            record=record,
            streams=streams,
            failed=await _in_time(overview.failed(reading, since=since)) or (),
            letters=await _in_time(overview.dead_letters(reading)) or (),
            alerts=await _in_time(overview.serious_alerts(reading, since=since)) or (),
        )
        ended, narrowed = await _in_time(overview.ended(reading, since=now - HOUR)), False
        if ended is None and record is not None:
            # Thousands a second: the last minutes say how it goes, too.
            ended, narrowed = await _in_time(overview.ended(reading, since=now - SHORT)), True
        return Look(
            found=found,
            minutes=None if ended is None else minutes(ended, now, SHORT if narrowed else HOUR),
            narrowed=narrowed,
            latest=await _in_time(overview.latest(reading)) or (),
        )


async def _lookout(request: Request) -> Lookout:
    found: Lookout = request.app.state.lookout
    return found


@router.get("/", dependencies=[needs(Scope.TASKS_READ)])
async def show_overview(
    request: Request, show: Shown, lookout: Annotated[Lookout, Depends(_lookout)]
) -> Response:
    """The whole page, without what this key may not see."""
    look, key = await lookout.get(), key_of(request)
    seen = Found(
        record=look.found.record,
        streams=look.found.streams,
        failed=look.found.failed,
        letters=look.found.letters if key.allows(Scope.DEAD_READ) else None,
        alerts=look.found.alerts if key.allows(Scope.ALERTS_READ) else None,
    )
    waits = sorted(
        (look.found.record.oldest_waiting if look.found.record else {}).items(),
        key=lambda each: -each[1],
    )
    return show(
        "overview.html",
        health=judge(seen),
        look=look,
        states=look.found.record.tasks if look.found.record else {},
        waits=waits,
        longest_wait=max((seconds for _, seconds in waits), default=0.0),
        series=_series(look.minutes or ()),
    )


def minutes(ended: Sequence[Ended], now: datetime, span: timedelta) -> list[Minute]:
    """A line for each minute of the span, also for those in which nothing ended."""
    last = int(now.timestamp()) // 60 * 60
    counts: dict[int, dict[str, int]] = {}
    for each in ended:
        name = "failed" if each.state in {TaskState.EXPIRED, TaskState.DEAD} else each.state
        of = counts.setdefault(each.minute, dict.fromkeys(ENDS, 0))
        of[name] = of.get(name, 0) + each.count
    return [
        Minute(at=datetime.fromtimestamp(at, UTC), **counts.get(at, dict.fromkeys(ENDS, 0)))
        for at in range(last - int(span.total_seconds()) + 60, last + 60, 60)
    ]


def _series(of: Sequence[Minute]) -> list[list[int]]:
    """As the chart takes it: times, then each kind of end."""
    return [
        [int(each.at.timestamp()) for each in of],
        *([int(getattr(each, name)) for each in of] for name in ENDS),
    ]


async def _in_time(asked: Awaitable[ValueT]) -> ValueT | None:
    # What does not answer is itself news; the rest of the page is shown all the same.
    with suppress(Unavailable):
        return await asked
    return None
