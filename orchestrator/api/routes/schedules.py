"""/api/v1/schedules: what runs when. Those declared on agents can be paused here, not changed."""

from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from uuid import UUID

from fastapi import Response

from orchestrator.api import paging
from orchestrator.api.auth import Actor, needs
from orchestrator.api.paging import Cursor, Limit, Listed
from orchestrator.api.parts import ApiParts, Parts
from orchestrator.api.problems import Problem
from orchestrator.api.requests import guarded
from orchestrator.api.schemas import (
    Accepted,
    CrontabIn,
    Preview,
    ScheduleChange,
    ScheduleIn,
    ScheduleOut,
    TickOut,
)
from orchestrator.api.submitting import submit
from orchestrator.cron import Crontab
from orchestrator.db.keys import Scope
from orchestrator.db.schedules import ScheduleStore, default_name
from orchestrator.db.ticks import Schedule
from orchestrator.task import Name

PATH = "/api/v1/schedules"
PREVIEWED = 10  # ticks

router = guarded(PATH, "schedules")


@router.get("", operation_id="listSchedules", dependencies=[needs(Scope.SCHEDULES_READ)])
async def list_schedules(
    parts: Parts,
    agent: Name | None = None,
    limit: Limit = paging.DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Listed[ScheduleOut]:
    """Schedules in the order of their names."""
    filters = {"agent": agent}
    after = paging.after_name(cursor, filters)
    found = await _store(parts).page(limit=limit + 1, after=after, agent=agent)
    more = len(found) > limit
    return Listed(
        items=[ScheduleOut.model_validate(each) for each in found[:limit]],
        next_cursor=paging.cursor_of((found[limit - 1].name,), filters) if more else None,
    )


@router.post(
    "", status_code=201, operation_id="createSchedule", dependencies=[needs(Scope.SCHEDULES_WRITE)]
)
async def create_schedule(
    body: ScheduleIn, parts: Parts, actor: Actor, response: Response
) -> ScheduleOut:
    """Make one that begins now. Its agent must exist and take the input."""
    store, crontab = _store(parts), body.crontab()
    parts.registry.get(body.agent).load_input(body.input)
    await _check_name_free(store, crontab.name or default_name(body.agent, crontab))
    made = await store.create(body.agent, crontab, actor=actor)
    response.headers["Location"] = f"{PATH}/{made.id}"
    return ScheduleOut.model_validate(made)


@router.get(
    "/{schedule_id}", operation_id="readSchedule", dependencies=[needs(Scope.SCHEDULES_READ)]
)
async def read_schedule(schedule_id: UUID, parts: Parts) -> ScheduleOut:
    """One schedule."""
    return ScheduleOut.model_validate(await _schedule(parts, schedule_id))


@router.patch(
    "/{schedule_id}", operation_id="updateSchedule", dependencies=[needs(Scope.SCHEDULES_WRITE)]
)
async def update_schedule(
    schedule_id: UUID, body: ScheduleChange, parts: Parts, actor: Actor
) -> ScheduleOut:
    """Change the fields that are sent, from now on; what was due before is recorded as missed."""
    store, standing = _store(parts), await _own_schedule(parts, schedule_id)
    if body.input is not None:
        parts.registry.get(standing.agent).load_input(body.input)
    if body.name not in {None, standing.name}:
        await _check_name_free(store, str(body.name))
    wanted = replace(standing.crontab, **body.changes())
    return _there(await store.update(standing.id, wanted, actor=actor), schedule_id)


@router.delete(
    "/{schedule_id}",
    status_code=204,
    operation_id="deleteSchedule",
    dependencies=[needs(Scope.SCHEDULES_WRITE)],
)
async def delete_schedule(schedule_id: UUID, parts: Parts, actor: Actor) -> None:
    """Take it away; the record of its ticks stays."""
    standing = await _own_schedule(parts, schedule_id)
    _there(await _store(parts).delete(standing.id, actor=actor), schedule_id)


@router.post(
    "/{schedule_id}/pause",
    operation_id="pauseSchedule",
    dependencies=[needs(Scope.SCHEDULES_WRITE)],
)
async def pause_schedule(schedule_id: UUID, parts: Parts, actor: Actor) -> ScheduleOut:
    """Fire nothing until it is resumed. Twice is once."""
    return _there(await _store(parts).pause(str(schedule_id), actor=actor), schedule_id)


@router.post(
    "/{schedule_id}/resume",
    operation_id="resumeSchedule",
    dependencies=[needs(Scope.SCHEDULES_WRITE)],
)
async def resume_schedule(schedule_id: UUID, parts: Parts, actor: Actor) -> ScheduleOut:
    """Go on from now; what came due meanwhile is recorded as missed."""
    return _there(await _store(parts).resume(str(schedule_id), actor=actor), schedule_id)


@router.post(
    "/{schedule_id}/trigger",
    status_code=202,
    operation_id="triggerSchedule",
    dependencies=[needs(Scope.SCHEDULES_WRITE)],
)
async def trigger_schedule(
    schedule_id: UUID, parts: Parts, actor: Actor, response: Response
) -> Accepted:
    """Submit its task now, beside its ticks and also while it is paused."""
    schedule = await _schedule(parts, schedule_id)
    task = parts.registry.get(schedule.agent).task(
        dict(schedule.input),
        metadata={
            "schedule_id": schedule.id,
            "schedule": schedule.name,
            "triggered_by": actor,
        },
    )
    receipt = (await submit(parts, [task], durability=None, actor=actor))[0]
    response.headers["Location"] = f"/api/v1/tasks/{receipt.task_id}"
    return Accepted(id=receipt.task_id, agent=task.agent, state=receipt.state)


@router.get(
    "/{schedule_id}/preview",
    operation_id="previewSchedule",
    dependencies=[needs(Scope.SCHEDULES_READ)],
)
async def preview_schedule(schedule_id: UUID, parts: Parts) -> Preview:
    """Its next ten ticks, as if it were not paused."""
    return _previewed((await _schedule(parts, schedule_id)).crontab)


@router.post("/preview", operation_id="previewCrontab", dependencies=[needs(Scope.SCHEDULES_READ)])
async def preview_crontab(body: CrontabIn) -> Preview:
    """The next ten ticks of a cron line that is no schedule yet."""
    return _previewed(Crontab(expression=body.expression, timezone=body.timezone))


@router.get(
    "/{schedule_id}/ticks", operation_id="listTicks", dependencies=[needs(Scope.SCHEDULES_READ)]
)
async def list_ticks(
    schedule_id: UUID, parts: Parts, limit: Limit = paging.DEFAULT_LIMIT, cursor: Cursor = None
) -> Listed[TickOut]:
    """What became of its ticks, the latest first."""
    schedule = await _schedule(parts, schedule_id)
    filters = {"schedule_id": schedule.id}
    after = paging.after(cursor, filters)
    found = await _store(parts).ticks(
        schedule.id, limit=limit + 1, before=after[0] if after else None
    )
    more = len(found) > limit
    last = (found[limit - 1].fire_at, schedule.id) if more else None
    return Listed(
        items=[TickOut.model_validate(each) for each in found[:limit]],
        next_cursor=paging.cursor_of(last, filters) if last else None,
    )


def _store(parts: ApiParts) -> ScheduleStore:
    return ScheduleStore(parts.database)


async def _schedule(parts: ApiParts, schedule_id: UUID) -> Schedule:
    found = await _store(parts).get(str(schedule_id))
    if found is None:
        raise _not_found(schedule_id)
    return found


async def _own_schedule(parts: ApiParts, schedule_id: UUID) -> Schedule:
    """One that was made here. Raises Problem for one that stands on an agent's class."""
    found = await _schedule(parts, schedule_id)
    if found.origin == "agent":
        raise Problem(
            409,
            "schedule_declared",
            f"schedule {found.name!r} is declared on agent {found.agent!r} and is changed there;"
            " what can be done here is to pause it",
        )
    return found


async def _check_name_free(store: ScheduleStore, name: str) -> None:
    # The database has the last word; this gives the common case its own status.
    if await store.find(name) is not None:
        raise Problem(409, "schedule_exists", f"a schedule named {name!r} exists; use another name")


def _there(found: Schedule | None, schedule_id: UUID) -> ScheduleOut:
    if found is None:
        raise _not_found(schedule_id)
    return ScheduleOut.model_validate(found)


def _not_found(schedule_id: UUID) -> Problem:
    return Problem(404, "schedule_not_found", f"no schedule {schedule_id}")


def _previewed(crontab: Crontab) -> Preview:
    ticks = list(islice(crontab.ticks_after(datetime.now(UTC)), PREVIEWED))
    return Preview(in_words=crontab.in_words(), timezone=crontab.timezone, ticks=ticks)
