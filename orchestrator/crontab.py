"""When a schedule fires: a cron line in a time zone, and what to do about ticks that were late.

A pure rule: times come in and go out, the clock is the caller's. Parsing is cronsim's.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from enum import StrEnum
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from orchestrator.errors import InvalidSchedule

FIELDS = "minute hour day-of-month month day-of-week (or six fields, the first one seconds)"


class CatchUp(StrEnum):
    """Which ticks to fire that came due while no scheduler ran, within the window."""

    LATEST = "latest"
    ALL = "all"
    NONE = "none"


class Overlap(StrEnum):
    """What to do with a tick while the previous tick's task is not finished."""

    SKIP = "skip"
    QUEUE = "queue"
    ALLOW = "allow"


@dataclass(frozen=True, slots=True, kw_only=True)
class Crontab:
    """One schedule: `crontab("*/15 * * * *", timezone="Asia/Riyadh")`."""

    expression: str
    input: Mapping[str, Any] = field(default_factory=dict)
    timezone: str = "UTC"
    name: str | None = None  # default: made from the agent's name and the line
    catchup: CatchUp = CatchUp.LATEST
    catchup_window: timedelta = timedelta(minutes=10)
    overlap: Overlap = Overlap.SKIP

    def __post_init__(self) -> None:
        """Refuse at once what could never fire."""
        check_expression(self.expression)
        check_timezone(self.timezone)

    def ticks_after(self, moment: datetime) -> Iterator[datetime]:
        """Each tick later than `moment`, in UTC; cron's own rules at changes of the clock."""
        local = moment.astimezone(ZoneInfo(self.timezone))
        for tick in CronSim(self.expression, local):
            yield tick.astimezone(UTC)

    def in_words(self) -> str:
        """ "At 06:00, every day" and the like."""
        return CronSim(self.expression, datetime.now(UTC)).explain()


def crontab(expression: str, **options: Any) -> Crontab:
    """A schedule in Celery's word; the options are the fields of `Crontab`."""
    return Crontab(expression=expression, **options)


def check_expression(expression: str) -> None:
    """Raise InvalidSchedule with what would have been right."""
    try:
        next(CronSim(expression, datetime(2026, 1, 1, tzinfo=UTC)))
    except CronSimError as error:
        raise InvalidSchedule(
            f"cron line {expression!r}: {str(error).lower()}; the fields are {FIELDS},"
            ' as in "*/15 * * * *"'
        ) from error
    except StopIteration as error:
        raise InvalidSchedule(f"cron line {expression!r} names a day that never comes") from error


def check_timezone(name: str) -> None:
    """Raise InvalidSchedule with the nearest zone's name."""
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        near = get_close_matches(name, available_timezones(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else 'names look like "Asia/Riyadh" or "UTC"'
        raise InvalidSchedule(f"unknown time zone {name!r}; {hint}") from error
