"""Cron lines in time zones, against a reference that looks at every minute."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.cron import CatchUp, Crontab, Overlap, crontab
from orchestrator.errors import InvalidSchedule

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
LONG = os.environ.get("AURORA_TEST_LONG") == "1"
FIRST = datetime(2020 if LONG else 2024, 1, 1, tzinfo=UTC)
LAST = datetime(2036 if LONG else 2028, 1, 1, tzinfo=UTC)

ZONES = (
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",  # half an hour
    "Asia/Riyadh",  # never
    "Pacific/Chatham",  # UTC+12:45, at 02:45
    "Africa/Casablanca",  # back for Ramadan
    "America/Santiago",  # at midnight
    "Africa/Cairo",  # forward at midnight, on a Friday
    "UTC",
)
LINES = (
    "* * * * *",
    "*/15 * * * *",
    "0 * * * *",
    "30 * * * *",
    "7 */2 * * *",
    "0 */2 * * *",
    "15,45 */3 * * *",
    "30 0-23 * * *",
    "0 0 * * *",
    "30 0 * * *",
    "30 1 * * *",
    "0 2 * * *",
    "15 2 * * *",
    "30 2 * * *",
    "50 2 * * *",
    "0,30 1,2,3 * * *",
    "*/5 2 * * *",
    "*/20 0 * * *",
    "59 23 * * *",
    "15 23 * * *",
    "0 12 1 * *",
    "0 6 * * 1-5",
    "30 2 1-7 * 0",
    "30 0 15 * 5",
    "45 * * 3,4,9,10,11 0",
    "0 */4 8 9 *",
)


@dataclass(frozen=True)
class Reference:
    """A five-field line, read the simplest way, and fired by looking at every minute."""

    line: str

    @property
    def fields(self) -> tuple[frozenset[int], ...]:
        parts = self.line.split()
        return tuple(
            _values(part, low, high)
            for part, (low, high) in zip(
                parts, ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6)), strict=True
            )
        )

    def matches(self, wall: datetime) -> bool:
        minutes, hours, days, months, weekdays = _fields(self)
        if wall.minute not in minutes or wall.hour not in hours or wall.month not in months:
            return False
        by_day, by_weekday = wall.day in days, wall.isoweekday() % 7 in weekdays
        _, _, day, _, weekday = self.line.split()
        both = day.startswith("*") or weekday.startswith("*")
        return (by_day and by_weekday) if both else (by_day or by_weekday)

    def ticks(self, walls: list[tuple[datetime, datetime]]) -> list[datetime]:
        """`walls`: each minute, and what the clock shows then."""
        hour = self.line.split()[1]
        if hour.startswith("*") or hour == "0-23":
            return [moment for moment, wall in walls if self.matches(wall)]
        found, latest = [], walls[0][1] - MINUTE
        for moment, wall in walls:
            # What the clock shows now for the first time: one minute, none, or a whole gap.
            shown = []
            while latest < wall:
                latest += MINUTE
                shown.append(latest)
            if any(self.matches(each) for each in shown):
                found.append(moment)
        return found


@cache
def _fields(reference: Reference) -> tuple[frozenset[int], ...]:
    return reference.fields


def _values(part: str, low: int, high: int) -> frozenset[int]:
    found: set[int] = set()
    for term in part.split(","):
        span, _, step = term.partition("/")
        first, _, last = (f"{low}-{high}" if span == "*" else span).partition("-")
        found.update(range(int(first), int(last or first) + 1, int(step or 1)))
    return frozenset(found)


@cache
def windows(zone: str) -> tuple[list[tuple[datetime, datetime]], ...]:
    """Three days around each change of the clock, and around two days without; by minutes."""
    local = ZoneInfo(zone)
    middles = [datetime(2024, 2, 29, tzinfo=UTC), datetime(2026, 12, 31, 12, tzinfo=UTC)]
    moment = FIRST
    while moment < LAST:
        if moment.astimezone(local).utcoffset() != (moment + HOUR).astimezone(local).utcoffset():
            middles.append(moment)
        moment += HOUR
    return tuple(_minutes(local, each - 1.5 * DAY, each + 1.5 * DAY) for each in middles)


def _minutes(zone: ZoneInfo, start: datetime, end: datetime) -> list[tuple[datetime, datetime]]:
    found = []
    while start < end:
        found.append((start, start.astimezone(zone).replace(tzinfo=None)))
        start += MINUTE
    return found


def _ticks(schedule: Crontab, walls: list[tuple[datetime, datetime]]) -> list[datetime]:
    return list(schedule.ticks_between(walls[0][0] - MINUTE, walls[-1][0]))


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("line", LINES)
def test_ticks_are_those_of_the_rule(line: str, zone: str):
    """Around each change of the clock in 2024-27, ticks equal a search minute by minute."""
    schedule = crontab(line, timezone=zone)

    for walls in windows(zone):
        assert _ticks(schedule, walls) == Reference(line).ticks(walls), walls[0][0]


@settings(deadline=None)  # a busy machine is no failure
@given(
    line=st.sampled_from(LINES),
    zone=st.sampled_from(ZONES),
    data=st.data(),
    seconds=st.integers(min_value=0, max_value=59),
)
def test_it_does_not_matter_where_one_begins_to_look(line, zone, data, seconds):
    """From any moment, also inside a fold or gap, the next tick is the next of the whole row."""
    walls = data.draw(st.sampled_from(windows(zone)))
    moment = data.draw(st.sampled_from(walls))[0] + timedelta(seconds=seconds, microseconds=1)
    schedule = crontab(line, timezone=zone)
    later = [tick for tick in _ticks(schedule, walls) if tick > moment]

    found = list(schedule.ticks_between(moment, walls[-1][0]))

    assert found == later


@given(
    line=st.sampled_from((*LINES, "* * * * * *", "*/7 * 2 * * *", "5 0 0 1 1 *")),
    zone=st.sampled_from(ZONES),
    start=st.datetimes(datetime(2024, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    length=st.timedeltas(timedelta(), timedelta(hours=3)),
)
def test_the_last_tick_is_found_without_walking_to_it(line, zone, start, length):
    """`last_tick_between` is the last of `ticks_between`."""
    schedule = crontab(line, timezone=zone)

    every = list(schedule.ticks_between(start, start + length))

    assert schedule.last_tick_between(start, start + length) == (every[-1] if every else None)


def _utc(*ticks: str) -> list[datetime]:
    return [datetime.fromisoformat(f"{tick}+00:00") for tick in ticks]


def _between(schedule: Crontab, start: str, end: str) -> Iterator[datetime]:
    (after, until) = _utc(start, end)
    return schedule.ticks_between(after, until)


@pytest.mark.parametrize(
    ("line", "zone", "start", "end", "ticks"),
    [
        pytest.param(
            "30 2 * * *", "Europe/Berlin", "2026-03-28T12:00", "2026-03-30T12:00",
            ("2026-03-29T01:00", "2026-03-30T00:30"), id="gap: at the first valid instant, 03:00",
        ),
        pytest.param(
            "*/20 2 * * *", "Europe/Berlin", "2026-03-28T12:00", "2026-03-29T12:00",
            ("2026-03-29T01:00",), id="gap: three times jumped over are one tick",
        ),
        pytest.param(
            "30 2 * * *", "Europe/Berlin", "2026-10-24T12:00", "2026-10-26T12:00",
            ("2026-10-25T00:30", "2026-10-26T01:30"), id="fold: the first 02:30 only",
        ),
        pytest.param(
            "30 * * * *", "Europe/Berlin", "2026-10-25T00:00", "2026-10-25T03:00",
            ("2026-10-25T00:30", "2026-10-25T01:30", "2026-10-25T02:30"), id="fold: every hour",
        ),
        pytest.param(
            "0 30 2 * * *", "Europe/Berlin", "2026-10-24T12:00", "2026-10-25T12:00",
            ("2026-10-25T00:30",), id="fold: with a field for seconds no other rule",
        ),
        pytest.param(
            "0 */2 * * *", "Australia/Lord_Howe", "2026-04-04T13:00", "2026-04-04T16:00",
            ("2026-04-04T15:30",), id="half an hour: 02:00 is not lost",
        ),
        pytest.param(
            "0 0 * * *", "America/Santiago", "2026-09-05T12:00", "2026-09-06T12:00",
            ("2026-09-06T04:00",), id="no midnight: at 01:00",
        ),
    ],
)  # fmt: skip
def test_changes_of_the_clock(line: str, zone: str, start: str, end: str, ticks: tuple[str, ...]):
    """The table of the documentation."""
    assert list(_between(crontab(line, timezone=zone), start, end)) == _utc(*ticks)


def test_seconds_inside_a_fold_come_twice_in_order():
    """A schedule of every second never stands still and never goes back."""
    schedule = crontab("* * * * * *", timezone="Europe/Berlin")

    ticks = list(_between(schedule, "2026-10-24T23:30", "2026-10-25T01:30"))

    assert len(ticks) == 7200
    assert ticks == sorted(set(ticks))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"expression": "*/15 * * *"}, 'wrong number of fields; the fields are minute .*"\\*/15'),
        ({"expression": "61 * * * *"}, "'61 \\* \\* \\* \\*': bad minute"),
        ({"expression": "0 0 31 2 *"}, "bad day-of-month"),
        ({"expression": ""}, "wrong number of fields"),
        ({"timezone": "Asia/Riyad"}, "did you mean 'Asia/Riyadh'"),
        ({"timezone": "here"}, "names look like"),
        ({"timezone": "localtime"}, "unknown time zone"),
        ({"timezone": "../etc/passwd"}, "unknown time zone"),
        ({"timezone": ""}, "unknown time zone"),
        ({"catchup": "newest"}, "catchup 'newest' is none of: latest, all, none"),
        ({"overlap": "wait"}, "overlap 'wait' is none of: skip, queue, allow"),
        ({"catchup_window": 600}, "a timedelta of 0 or more"),
        ({"catchup_window": timedelta(seconds=-1)}, "a timedelta of 0 or more"),
    ],
)
def test_a_bad_schedule_is_refused_with_what_would_be_right(options, says):
    """Each mistake has one clear error, at once."""
    with pytest.raises(InvalidSchedule, match=says):
        Crontab(**{"expression": "* * * * *", **options})


def test_policies_may_be_given_as_text():
    """As they stand in the record and in JSON."""
    schedule = crontab("0 6 * * *", catchup="all", overlap="queue")

    assert (schedule.catchup, schedule.overlap) == (CatchUp.ALL, Overlap.QUEUE)
    assert schedule.in_words() == "At 06:00 every day"
