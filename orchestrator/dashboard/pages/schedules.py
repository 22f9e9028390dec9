"""/schedules: what runs when, in words; and the form that makes one."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Annotated, Any
from zoneinfo import ZoneInfo, available_timezones

from fastapi import Form, Query
from pydantic import ValidationError
from starlette.responses import RedirectResponse, Response

from orchestrator.api import paging
from orchestrator.api.auth import Actor, needs
from orchestrator.api.paging import Cursor, Text
from orchestrator.api.parts import ApiParts, Parts
from orchestrator.api.problems import Problem
from orchestrator.api.routes import schedules as routes
from orchestrator.api.schemas import ScheduleIn, ScheduleOut
from orchestrator.cron import CatchUp, Crontab, Overlap, check_expression, check_timezone
from orchestrator.dashboard.forms import Blank, own_form
from orchestrator.dashboard.rendering import Shown
from orchestrator.dashboard.routing import Reading, pages
from orchestrator.dashboard.typed_json import NotJson, object_of
from orchestrator.db import track
from orchestrator.db.keys import Scope
from orchestrator.db.schedules import ScheduleStore
from orchestrator.db.ticks import Schedule
from orchestrator.errors import InvalidInput, InvalidSchedule, UnknownAgent

router = pages()

PATH = "/schedules"
PAGE = 50  # rows
NEXT = 10  # ticks
# A scheduler decides within seconds; from here on none runs, or none keeps up.
OVERDUE = timedelta(minutes=1)
LATE_WORDS = {
    CatchUp.LATEST: "fire the latest only",
    CatchUp.ALL: "fire all of them",
    CatchUp.NONE: "fire none",
}
OVERLAP_WORDS = {
    Overlap.SKIP: "skip the tick",
    Overlap.QUEUE: "let one tick wait",
    Overlap.ALLOW: "run both",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A schedule as people say it; `wrong` where this machine cannot read it."""

    schedule: Schedule
    words: str
    is_overdue: bool
    wrong: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Typed:
    """The form as it was typed, to be shown again with what is wrong beside each field."""

    agent: str = ""
    expression: str = ""
    timezone: str = "UTC"
    name: str = ""
    input: str = "{}"
    catchup: str = CatchUp.LATEST.value
    catchup_window_seconds: str = "600"
    overlap: str = Overlap.SKIP.value
    wrong: dict[str, str] = field(default_factory=dict)  # field -> what would be right


def told(schedule: Schedule, now: datetime) -> Told:
    """In words, also one that cannot be read here."""
    late = schedule.paused_at is None and schedule.next_tick_at < now - OVERDUE
    try:
        words, wrong = schedule.crontab.in_words(), None
    except InvalidSchedule as error:
        words, wrong = schedule.expression, str(error)
    return Told(schedule=schedule, words=words, is_overdue=late, wrong=wrong)


def next_ticks(crontab: Crontab, now: datetime) -> list[tuple[datetime, datetime]]:
    """The next ten: (by the zone's clock, in UTC)."""
    zone = ZoneInfo(crontab.timezone)
    return [(tick.astimezone(zone), tick) for tick in islice(crontab.ticks_after(now), NEXT)]


@router.get(PATH, dependencies=[needs(Scope.SCHEDULES_READ)])
async def list_schedules(
    parts: Parts,
    reading: Reading,
    show: Shown,
    agent: Annotated[Text | None, Blank, Query()] = None,
    cursor: Cursor = None,
) -> Response:
    """Schedules in the order of their names, each with its last ticks."""
    query, now = {"agent": agent}, datetime.now(UTC)
    after = paging.after_name(cursor, query)
    found = await ScheduleStore(reading).page(limit=PAGE + 1, after=after, agent=agent)
    rows, more = found[:PAGE], len(found) > PAGE
    return show(
        "schedules.html",
        rows=[told(each, now) for each in rows],
        marks=await track.marks(reading, [each.id for each in rows]),
        agent=agent,
        agents=[("", "All agents"), *((each.name, each.name) for each in parts.registry)],
        query=query,
        next_cursor=paging.cursor_of((rows[-1].name,), query) if more else None,
        is_first=cursor is None,
    )


@router.get(PATH + "/new", dependencies=[needs(Scope.SCHEDULES_WRITE)])
async def new_schedule(
    parts: Parts, show: Shown, agent: Annotated[Text | None, Blank, Query()] = None
) -> Response:
    """The form."""
    return _form(parts, show, Typed(agent=agent or ""))


@router.get(PATH + "/preview", dependencies=[needs(Scope.SCHEDULES_READ)])
async def preview(
    show: Shown,
    expression: Annotated[str, Query(max_length=200)] = "",
    timezone: Annotated[str, Query(max_length=100)] = "UTC",
) -> Response:
    """For the form: what a line says, and when it would fire."""
    if not expression.strip():
        return show("schedule_ticks.html", ticks=[], words=None, wrong=None, zone=timezone)
    try:
        crontab = Crontab(expression=expression, timezone=timezone)
    except InvalidSchedule as error:
        return show("schedule_ticks.html", ticks=[], words=None, wrong=str(error), zone=timezone)
    ticks = next_ticks(crontab, datetime.now(UTC))
    return show(
        "schedule_ticks.html", ticks=ticks, words=crontab.in_words(), wrong=None, zone=timezone
    )


@router.post(PATH + "/new", dependencies=[needs(Scope.SCHEDULES_WRITE), own_form])
async def create_schedule(
    parts: Parts,
    actor: Actor,
    show: Shown,
    *,
    agent: Annotated[str, Form()] = "",
    expression: Annotated[str, Form()] = "",
    timezone: Annotated[str, Form()] = "UTC",
    name: Annotated[str, Form()] = "",
    input: Annotated[str, Form()] = "{}",  # noqa: A002 - stands in the form
    catchup: Annotated[str, Form()] = CatchUp.LATEST.value,
    catchup_window_seconds: Annotated[str, Form()] = "600",
    overlap: Annotated[str, Form()] = Overlap.SKIP.value,
) -> Response:
    """Make one that begins now; or the form again, with what would be right beside each field."""
    given = {
        "agent": agent, "expression": expression.strip(), "timezone": timezone.strip(),
        "name": name.strip(), "input": input, "catchup": catchup,
        "catchup_window_seconds": catchup_window_seconds.strip(), "overlap": overlap,
    }  # fmt: skip
    made = await _make(parts, given, actor)
    if isinstance(made, dict):
        return _form(parts, show, Typed(**given, wrong=made), status=422)
    return RedirectResponse(f"{PATH}/{made.id}", 303)


def _form(parts: ApiParts, show: Any, typed: Typed, *, status: int = 200) -> Response:
    answer: Response = show(
        "schedule_new.html",
        status=status,
        typed=typed,
        agents=[("", "Choose one"), *((each.name, each.name) for each in parts.registry)],
        zones=sorted(available_timezones() - {"localtime"}),
        late_words=[(each.value, said) for each, said in LATE_WORDS.items()],
        overlap_words=[(each.value, said) for each, said in OVERLAP_WORDS.items()],
    )
    return answer


async def _make(parts: ApiParts, given: dict[str, str], actor: str) -> ScheduleOut | dict[str, str]:
    """The schedule, or what is wrong by field."""
    wrong: dict[str, str] = {}
    body: dict[str, Any] = {name: value for name, value in given.items() if value}
    if not given["agent"]:
        wrong["agent"] = "choose the agent that is to run"
    for name, check in (("expression", check_expression), ("timezone", check_timezone)):
        try:
            check(given[name])
        except InvalidSchedule as error:
            wrong[name] = str(error)
    try:
        body["input"] = object_of(given["input"])
    except NotJson as error:
        wrong["input"] = str(error)
    if wrong:
        return wrong
    try:
        return await routes.create_schedule(ScheduleIn(**body), parts, actor, Response())
    except ValidationError as error:
        return {str(each["loc"][0]): str(each["msg"]) for each in error.errors() if each["loc"]}
    except UnknownAgent as error:
        return {"agent": str(error)}
    except InvalidInput as error:
        return {"input": "; ".join(f"{at or '/'}: {said}" for at, said in error.problems)}
    except (Problem, InvalidSchedule) as error:
        # What is left after the checks above: the name is taken, also in the very same moment.
        return {"name": str(error)}
