"""When a schedule fires: a cron line in a time zone, and what to do about ticks that were late.

Pure rules: times come in and go out, the clock is the caller's. Reading the line is cronsim's;
time zones are ours, because cronsim's own walk loses ticks where clocks move by half an hour
(Lord Howe) or at midnight (Santiago), and repeats the past when it starts inside a fold.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from enum import StrEnum
from itertools import islice
from typing import Any, TypeVar
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from orchestrator.errors import InvalidSchedule

FIELDS = "minute hour day-of-month month day-of-week (or six fields, the first one seconds)"
# A tick that is decided within this time is on time, and no business of the catch-up policy: a
# pause of the scheduler must not cost a schedule of every second its ticks.
ON_TIME = timedelta(seconds=5)
MAX_AT_ONCE = 200  # ticks fired by one plan; the next plan goes on where it stopped
MAX_MISSED_ROWS = 100  # missed ticks with a row each; a longer run shares its last tick's row
MAX_COUNTED = 10_000  # missed ticks counted for the sentence; more cost the loop 100 ms and more
LONGEST_SHIFT = timedelta(hours=3)  # no zone sets its clocks back by more since 1970
NEVER = timedelta(days=365 * 50)  # how far cronsim looks
_SECOND = timedelta(seconds=1)
_EnumT = TypeVar("_EnumT", bound=StrEnum)


class CatchUp(StrEnum):
    """Which ticks to fire that came due while no scheduler ran, within the window."""

    LATEST = "latest"
    ALL = "all"
    NONE = "none"


class Overlap(StrEnum):
    """What to do with a tick while the previous tick's task is not finished.

    skip: not fired. queue: one tick waits and fires when the task has ended, further ones are
    skipped. allow: fired all the same.
    """

    SKIP = "skip"
    QUEUE = "queue"
    ALLOW = "allow"


class TickOutcome(StrEnum):
    """What became of a due tick. Waiting is followed by fired, or by skipped."""

    FIRED = "fired"
    MISSED = "missed"
    SKIPPED = "skipped"
    WAITING = "waiting"


@dataclass(frozen=True, slots=True, kw_only=True)
class Crontab:
    """One schedule: `crontab("*/15 * * * *", timezone="Asia/Riyadh")`.

    Changes of the clock, for Berlin, where 02:00 to 03:00 is missing in March and comes twice in
    October: `30 2 * * *` fires in March at 03:00, the first instant after the gap, and in October
    at the first 02:30 only. `30 * * * *` (every hour, by `*` or by naming all 24) follows elapsed
    time: no 02:30 in March, both in October. Of several times in one gap, one tick.
    """

    expression: str
    input: Mapping[str, Any] = field(default_factory=dict)
    timezone: str = "UTC"
    name: str | None = None  # default: made from the agent's name and the line
    catchup: CatchUp = CatchUp.LATEST
    catchup_window: timedelta = timedelta(minutes=10)
    overlap: Overlap = Overlap.SKIP

    def __post_init__(self) -> None:
        """Refuse at once what could never fire; take "latest" for CatchUp.LATEST."""
        check_expression(self.expression)
        check_timezone(self.timezone)
        object.__setattr__(self, "catchup", _member(CatchUp, self.catchup, "catchup"))
        object.__setattr__(self, "overlap", _member(Overlap, self.overlap, "overlap"))
        window: object = self.catchup_window  # a caller's code may not be type-checked
        if not isinstance(window, timedelta) or window < timedelta():
            raise InvalidSchedule(
                f"catchup_window {window!r}: a timedelta of 0 or more is needed,"
                " as in timedelta(minutes=10)"
            )

    def ticks_after(self, moment: datetime) -> Iterator[datetime]:
        """Each tick later than `moment`, in UTC, in order."""
        zone = ZoneInfo(self.timezone)
        local = moment.astimezone(zone)
        # Clock times behind us come again if the clocks go back soon: begin with those.
        again = _offset(local) - _offset((moment + LONGEST_SHIFT).astimezone(zone))
        start = local.replace(tzinfo=None) - max(again, timedelta())
        walls = CronSim(self.expression, start)
        follow = _each_occurrence if _every_hour(walls) else _first_occurrence
        return (tick for tick in follow(walls, zone) if tick > moment)

    def next_tick(self, moment: datetime) -> datetime:
        """The first tick later than `moment`; 50 years on where there is none."""
        return next(self.ticks_after(moment), moment + NEVER)

    def ticks_between(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """Each tick later than `after` and not later than `until`."""
        if after < until:
            for tick in self.ticks_after(after):
                if tick > until:
                    return
                yield tick

    def last_tick_between(self, after: datetime, until: datetime) -> datetime | None:
        """The last of `ticks_between`, without walking through all of them."""
        back = timedelta(minutes=1)
        while after < until:
            start = max(after, until - back)
            last = deque(self.ticks_between(start, until), maxlen=1)
            if last:
                return last[0]
            if start == after:
                return None
            back *= 4
        return None

    def in_words(self) -> str:
        """Say the line in English: "At 06:00, every day"."""
        return CronSim(self.expression, datetime.now(UTC)).explain()


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What becomes of one tick, and why; `released`: its row exists, it has been waiting."""

    fire_at: datetime
    outcome: TickOutcome
    reason: str | None = None
    released: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do about a schedule now, and where the next look at it begins."""

    decisions: tuple[Decision, ...]
    decided_until: datetime
    next_tick_at: datetime


def crontab(expression: str, **options: Any) -> Crontab:
    """A schedule in Celery's word; the options are the fields of `Crontab`."""
    return Crontab(expression=expression, **options)


def plan(
    schedule: Crontab,
    *,
    decided_until: datetime,
    now: datetime,
    previous_open: bool = False,
    waiting: datetime | None = None,
    blocked: str | None = None,
) -> Plan:
    """Decide every tick in (decided_until, now], with bounded work however long that is.

    Ticks up to 5 s old are on time and fire. Older ones are late: beyond the catch-up window they
    are missed, within it the policy says which fire; with `latest` none does if an on-time tick
    fires, for that one is later still. A schedule of every second after ten hours without a
    scheduler, at 18:00:00.5, window 10 min: `latest` fires 17:59:56 to 18:00:00, `all` from
    17:50:01 on in portions of 200; one row stands for the missed hours.

    `previous_open`: the task of the last fired tick has not ended. `waiting`: the tick that waits
    for that (overlap `queue`). `blocked`: why no task can be made, so that nothing can fire.
    """
    on_time = now - ON_TIME
    window = min(now - schedule.catchup_window, on_time)
    reason = f"older than the catch-up window of {schedule.catchup_window.total_seconds():g} s"
    missed = missed_between(schedule, decided_until, window, reason)
    due = list(schedule.ticks_between(max(decided_until, on_time), now))
    until = max(decided_until, now)
    late_missed, late = _late(schedule, max(decided_until, window), on_time, fresh=bool(due))
    if len(late) == MAX_AT_ONCE:
        due, until = [], late[-1]
    met = _overlapping(
        schedule.overlap,
        [*late, *due],
        previous_open=previous_open,
        waiting=waiting,
        blocked=blocked,
    )
    return Plan(
        decisions=(*missed, *late_missed, *met),
        decided_until=until,
        next_tick_at=schedule.next_tick(until),
    )


def missed_between(
    schedule: Crontab, after: datetime, until: datetime, reason: str
) -> tuple[Decision, ...]:
    """A decision for each tick in (after, until], or one for all of them if they are many.

    The one stands at the last tick; its reason says how many it stands for: "3600 ticks from
    2026-01-01 00:00:00 to 2026-01-01 00:59:59 UTC: ...", or "more than 10000 ticks from ...".
    """
    first = list(islice(schedule.ticks_between(after, until), MAX_MISSED_ROWS + 1))
    if len(first) <= MAX_MISSED_ROWS:
        return tuple(Decision(fire_at=t, outcome=TickOutcome.MISSED, reason=reason) for t in first)
    last = schedule.last_tick_between(after, until) or first[-1]
    counted = sum(1 for _ in islice(schedule.ticks_between(after, until), MAX_COUNTED + 1))
    number = str(counted) if counted <= MAX_COUNTED else f"more than {MAX_COUNTED}"
    summary = f"{number} ticks from {first[0]:%F %T} to {last:%F %T} UTC: {reason}"
    return (Decision(fire_at=last, outcome=TickOutcome.MISSED, reason=summary),)


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
        # Whatever the machine is set to: two schedulers would not agree on it.
        known = name != "localtime"
    except (KeyError, ValueError, OSError):
        known = False
    if not known:
        near = get_close_matches(name, available_timezones(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else 'names look like "Asia/Riyadh" or "UTC"'
        raise InvalidSchedule(f"unknown time zone {name!r}; {hint}")


def _late(
    schedule: Crontab, after: datetime, until: datetime, *, fresh: bool
) -> tuple[tuple[Decision, ...], list[datetime]]:
    """Of the late ticks in (after, until]: those missed by policy, and those to fire."""
    match schedule.catchup:
        case CatchUp.ALL:
            return (), list(islice(schedule.ticks_between(after, until), MAX_AT_ONCE))
        case CatchUp.LATEST:
            latest = None if fresh else schedule.last_tick_between(after, until)
            end = latest - _SECOND if latest else until
            reason = "late; catch-up fires the latest only"
            return missed_between(schedule, after, end, reason), [latest] if latest else []
        case CatchUp.NONE:
            return missed_between(schedule, after, until, "late; catch-up is none"), []


def _overlapping(
    overlap: Overlap,
    due: Iterable[datetime],
    *,
    previous_open: bool,
    waiting: datetime | None,
    blocked: str | None,
) -> Iterator[Decision]:
    """What becomes of ticks that are to fire: the previous one's task may be in the way."""
    if waiting and (not previous_open or overlap is not Overlap.QUEUE):
        outcome = TickOutcome.SKIPPED if blocked else TickOutcome.FIRED
        yield Decision(fire_at=waiting, outcome=outcome, reason=blocked, released=True)
        previous_open, waiting = not blocked, None
    for tick in due:
        if blocked:
            yield Decision(fire_at=tick, outcome=TickOutcome.MISSED, reason=blocked)
        elif overlap is Overlap.ALLOW or not previous_open:
            yield Decision(fire_at=tick, outcome=TickOutcome.FIRED)
            previous_open = True
        elif overlap is Overlap.QUEUE and waiting is None:
            reason = "the previous tick's task has not ended; fires when it has"
            yield Decision(fire_at=tick, outcome=TickOutcome.WAITING, reason=reason)
            waiting = tick
        else:
            reason = "a tick is waiting already" if waiting else "the previous task has not ended"
            yield Decision(fire_at=tick, outcome=TickOutcome.SKIPPED, reason=reason)


def _every_hour(line: CronSim) -> bool:
    return line.parts[2].startswith("*") or set(range(24)) <= line.hours


def _first_occurrence(walls: Iterable[datetime], zone: ZoneInfo) -> Iterator[datetime]:
    """The first instant at which the clock shows each time, or has just jumped over it."""
    last = None
    for wall in walls:
        instants = _instants(wall, zone)
        tick = instants[0] if instants else _end_of_gap(wall, zone)
        if tick != last:
            yield tick
        last = tick


def _each_occurrence(walls: Iterable[datetime], zone: ZoneInfo) -> Iterator[datetime]:
    """Every instant at which the clock shows one of these times."""
    # First occurrences ascend with the clock's times, and so do second ones: merge the two.
    second: deque[datetime] = deque()
    for wall in walls:
        instants = _instants(wall, zone)
        if not instants:
            continue
        while second and second[0] < instants[0]:
            yield second.popleft()
        yield instants[0]
        second.extend(instants[1:])
    yield from second


def _instants(wall: datetime, zone: ZoneInfo) -> list[datetime]:
    """When the clock of `zone` shows `wall`: once, twice in a fold, never in a gap."""
    first, second = (wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    if first == second:
        return [first]
    return [first, second] if first < second else []


def _end_of_gap(wall: datetime, zone: ZoneInfo) -> datetime:
    """The instant of the jump over `wall`: between `wall` by the later offset and the earlier."""
    low, high = (wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (1, 0))
    after = _offset(high.astimezone(zone))
    while high - low > _SECOND:
        middle = low + (high - low) // _SECOND // 2 * _SECOND
        if _offset(middle.astimezone(zone)) == after:
            high = middle
        else:
            low = middle
    return high


def _offset(local: datetime) -> timedelta:
    return local.utcoffset() or timedelta()


def _member(kind: type[_EnumT], value: str, what: str) -> _EnumT:
    try:
        return kind(value)
    except ValueError:
        known = ", ".join(kind)
        raise InvalidSchedule(f"{what} {value!r} is none of: {known}") from None
