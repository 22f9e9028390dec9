"""`aurora schedules`: what runs when."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli import opening
from orchestrator.cli.output import Format, Limit, Output, show_list
from orchestrator.errors import OrchestratorError

if TYPE_CHECKING:
    from orchestrator.db.schedules import ScheduleStore
    from orchestrator.db.ticks import Schedule
    from orchestrator.parts import Parts

app = typer.Typer(no_args_is_help=True, help="Schedules: list, pause, resume, trigger, preview.")
SHOWN = ("name", "agent", "expression", "timezone", "state", "next_tick_at", "last_task_id", "id")
Which = Annotated[str, typer.Argument(metavar="SCHEDULE", help="Its name or its id.")]


class NoSuchSchedule(OrchestratorError):
    """No schedule of that name or id."""


@app.command("list")
def list_schedules(
    agent: Annotated[str | None, typer.Option()] = None,
    limit: Limit = 200,
    output: Output = Format.TABLE,
) -> None:
    """List schedules in the order of their names."""

    async def work(parts: "Parts") -> list[dict[str, Any]]:
        found = await _store(parts).page(limit=limit, agent=agent)
        return [_summary(each) for each in found]

    show_list(
        opening.with_parts(work), output, columns=SHOWN,
        nothing="no schedules; those declared on agents appear when a scheduler has started",
    )  # fmt: skip


@app.command("pause")
def pause(which: Which) -> None:
    """Fire nothing until it is resumed."""

    async def work(parts: "Parts") -> str:
        schedule = await _find(parts, which)
        await _store(parts).pause(schedule.id, actor=opening.actor())
        return schedule.name

    print(f"{opening.with_parts(work)} is paused")


@app.command("resume")
def resume(which: Which) -> None:
    """Go on from now; what came due meanwhile is recorded as missed."""

    async def work(parts: "Parts") -> "Schedule | None":
        schedule = await _find(parts, which)
        return await _store(parts).resume(schedule.id, actor=opening.actor())

    found = opening.with_parts(work)
    if found is not None:
        print(f"{found.name} goes on; its next tick is {found.next_tick_at:%Y-%m-%d %H:%M:%S} UTC")


@app.command("trigger")
def trigger(which: Which) -> None:
    """Submit its task now, beside its ticks and also while it is paused."""

    async def work(parts: "Parts") -> str:
        schedule = await _find(parts, which)
        task = parts.registry.get(schedule.agent).task(
            dict(schedule.input),
            metadata={
                "schedule_id": schedule.id,
                "schedule": schedule.name,
                "triggered_by": opening.actor(),
            },
        )
        receipts = await parts.submitter.submit_many([task], actor=opening.actor())
        return receipts[0].task_id

    print(f"task {opening.with_parts(work)}")


@app.command("preview")
def preview(
    which: Annotated[
        str, typer.Argument(metavar="SCHEDULE|'CRON LINE'", help="Five or six fields: a cron line.")
    ],
    timezone: Annotated[str, typer.Option(help="Of a cron line.")] = "UTC",
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=1000)] = 10,
    output: Output = Format.TABLE,
) -> None:
    """Show the next ticks of a schedule, or of a cron line that is none yet."""
    from itertools import islice
    from zoneinfo import ZoneInfo

    from orchestrator.cron import Crontab

    if len(which.split()) in {5, 6}:
        crontab = Crontab(expression=which, timezone=timezone)
    else:
        crontab = opening.with_parts(lambda parts: _find(parts, which)).crontab
    zone = ZoneInfo(crontab.timezone)
    ticks = islice(crontab.ticks_after(datetime.now(UTC)), count)
    rows = [
        {"utc": tick, "local": tick.astimezone(zone), "zone": crontab.timezone} for tick in ticks
    ]
    show_list(rows, output, columns=("utc", "local", "zone"), nothing="it never fires")


def _store(parts: "Parts") -> "ScheduleStore":
    from orchestrator.db.schedules import ScheduleStore

    return ScheduleStore(parts.database)


async def _find(parts: "Parts", which: str) -> "Schedule":
    """By name, else by id. Raises NoSuchSchedule."""
    from uuid import UUID

    found = await _store(parts).find(which)
    if found is None:
        try:
            found = await _store(parts).get(str(UUID(which)))
        except ValueError:
            found = None
    if found is None:
        raise NoSuchSchedule(f"no schedule {which!r}; aurora schedules list has them")
    return found


def _summary(schedule: "Schedule") -> dict[str, Any]:
    return {
        "id": schedule.id,
        "name": schedule.name,
        "agent": schedule.agent,
        "expression": schedule.expression,
        "timezone": schedule.timezone,
        "state": "paused" if schedule.paused_at else "active",
        "next_tick_at": schedule.next_tick_at,
        "last_task_id": schedule.last_task_id,
        "catchup": schedule.catchup.value,
        "catchup_window": schedule.catchup_window,
        "overlap": schedule.overlap.value,
        "origin": schedule.origin,
        "input": dict(schedule.input),
        "paused_at": schedule.paused_at,
    }
