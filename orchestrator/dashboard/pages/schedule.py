"""/schedules/{id}: one schedule, its ticks to come and those that were; pause, trigger, delete."""

from datetime import UTC, datetime
from enum import StrEnum
from uuid import UUID

from starlette.responses import RedirectResponse, Response

from orchestrator.api import paging
from orchestrator.api.auth import Actor, needs
from orchestrator.api.paging import Cursor
from orchestrator.api.parts import Parts
from orchestrator.api.problems import Problem
from orchestrator.api.routes import schedules as routes
from orchestrator.dashboard.forms import own_form
from orchestrator.dashboard.pages.schedules import (
    LATE_WORDS,
    OVERLAP_WORDS,
    PATH,
    next_ticks,
    told,
)
from orchestrator.dashboard.rendering import Show, Shown
from orchestrator.dashboard.routing import Reading, pages
from orchestrator.db import glance, track
from orchestrator.db.keys import Scope
from orchestrator.db.schedules import ScheduleStore
from orchestrator.db.session import Database
from orchestrator.errors import OrchestratorError, Overloaded, Unavailable

router = pages()

ONE = PATH + "/{schedule_id}"
HISTORY = 50  # ticks of a page


class Act(StrEnum):
    """What can be done with a schedule that stays."""

    PAUSE = "pause"
    RESUME = "resume"


@router.get(ONE, dependencies=[needs(Scope.SCHEDULES_READ)])
async def read_schedule(
    schedule_id: UUID, reading: Reading, show: Shown, cursor: Cursor = None
) -> Response:
    """Facts, the next ten ticks, and what became of those before."""
    return await _page(schedule_id, reading, show, cursor=cursor)


@router.post(ONE + "/trigger", dependencies=[needs(Scope.SCHEDULES_WRITE), own_form])
async def trigger_schedule(
    schedule_id: UUID, parts: Parts, reading: Reading, actor: Actor, *, show: Shown
) -> Response:
    """Submit its task now; on to the task."""
    try:
        accepted = await routes.trigger_schedule(schedule_id, parts, actor, Response())
    except (Unavailable, Overloaded):
        raise
    except OrchestratorError as error:  # its agent is gone, or no longer takes this input
        return await _page(schedule_id, reading, show, wrong=str(error))
    return RedirectResponse(f"/tasks/{accepted.id}", 303)


@router.post(ONE + "/delete", dependencies=[needs(Scope.SCHEDULES_WRITE), own_form])
async def delete_schedule(
    schedule_id: UUID, parts: Parts, reading: Reading, actor: Actor, *, show: Shown
) -> Response:
    """Take it away; on to the list."""
    try:
        await routes.delete_schedule(schedule_id, parts, actor)
    except Problem as error:
        return await _page(schedule_id, reading, show, wrong=str(error))
    return RedirectResponse(PATH, 303)


@router.post(ONE + "/{act}", dependencies=[needs(Scope.SCHEDULES_WRITE), own_form])
async def change_schedule(
    schedule_id: UUID, act: Act, parts: Parts, reading: Reading, actor: Actor, *, show: Shown
) -> Response:
    """Pause it, or let it go on."""
    change = routes.pause_schedule if act is Act.PAUSE else routes.resume_schedule
    try:
        await change(schedule_id, parts, actor)
    except (Unavailable, Overloaded):
        raise
    except OrchestratorError as error:  # a zone that is not known here cannot be resumed
        return await _page(schedule_id, reading, show, wrong=str(error))
    return RedirectResponse(f"{PATH}/{schedule_id}", 303)


async def _page(
    schedule_id: UUID,
    reading: Database,
    show: Show,
    *,
    cursor: str | None = None,
    wrong: str | None = None,
) -> Response:
    store, now = ScheduleStore(reading), datetime.now(UTC)
    schedule = await store.get(str(schedule_id))
    if schedule is None:
        raise Problem(404, "schedule_not_found", f"no schedule {schedule_id}; it may be deleted")
    filters = {"schedule_id": schedule.id}
    after = paging.after(cursor, filters)
    found = await store.ticks(schedule.id, limit=HISTORY + 1, before=after[0] if after else None)
    ticks, more = found[:HISTORY], len(found) > HISTORY
    tasks = await glance.tasks_of(reading, [each.task_id for each in ticks if each.task_id])
    standing = told(schedule, now)
    return show(
        "schedule.html",
        status=409 if wrong else 200,
        told=standing,
        schedule=schedule,
        path=f"{PATH}/{schedule.id}",
        upcoming=[] if standing.wrong else next_ticks(schedule.crontab, now),
        marks=(await track.marks(reading, [schedule.id]))[schedule.id],
        ticks=ticks,
        states={each.id: each.state for each in tasks},
        late_words=LATE_WORDS,
        overlap_words=OVERLAP_WORDS,
        next_cursor=paging.cursor_of((ticks[-1].fire_at, schedule.id), filters) if more else None,
        is_first=cursor is None,
        wrong=wrong,
    )
