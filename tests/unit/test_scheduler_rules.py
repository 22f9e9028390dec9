"""What is decided about ticks that are due, late, or in each other's way: a pure rule."""

import time
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cron import (
    MAX_AT_ONCE,
    CatchUp,
    Crontab,
    Decision,
    Overlap,
    TickOutcome,
    crontab,
    plan,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def _at(text: str) -> datetime:
    return datetime.fromisoformat(f"2026-03-01T{text}+00:00")


def _shown(decisions: tuple[Decision, ...]) -> list[str]:
    return [f"{each.fire_at:%H:%M:%S} {each.outcome}" for each in decisions]


def test_a_tick_on_time_fires_and_the_next_look_begins_after_it():
    """The normal case: one due tick."""
    found = plan(crontab("0 * * * *"), decided_until=_at("11:30:00"), now=_at("12:00:00.050"))

    assert _shown(found.decisions) == ["12:00:00 fired"]
    assert found.decided_until == _at("12:00:00.050")
    assert found.next_tick_at == _at("13:00:00")


def test_nothing_due_decides_nothing():
    """A look that comes too early changes only the time."""
    found = plan(crontab("0 * * * *"), decided_until=_at("11:30:00"), now=_at("11:59:59.999"))

    assert found.decisions == ()
    assert found.next_tick_at == NOON


def test_a_clock_that_goes_back_fires_nothing_again():
    """`decided_until` never goes back."""
    found = plan(crontab("* * * * *"), decided_until=NOON, now=NOON - timedelta(hours=1))

    assert found.decisions == ()
    assert found.decided_until == NOON
    assert found.next_tick_at == NOON + timedelta(minutes=1)


def test_a_scheduler_that_stalls_for_some_seconds_costs_no_tick():
    """Up to 5 s late is on time, whatever the catch-up policy."""
    for policy in CatchUp:
        schedule = crontab("* * * * * *", catchup=policy, overlap="allow")

        found = plan(schedule, decided_until=_at("11:59:56"), now=NOON)

        assert _shown(found.decisions) == [
            "11:59:57 fired", "11:59:58 fired", "11:59:59 fired", "12:00:00 fired",
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("policy", "outcomes"),
    [
        ("latest", ["11:40 missed", "11:45 missed", "11:50 missed", "11:55 fired"]),
        ("all", ["11:40 missed", "11:45 missed", "11:50 fired", "11:55 fired"]),
        ("none", ["11:40 missed", "11:45 missed", "11:50 missed", "11:55 missed"]),
    ],
)
def test_after_an_outage_the_policy_says_what_fires(policy, outcomes):
    """Within the window of 10 min by policy; older ticks are missed in any case."""
    schedule = crontab("*/5 * * * *", catchup=policy, overlap="allow")

    found = plan(schedule, decided_until=_at("11:36:00"), now=_at("11:59:30"))

    assert [f"{each.fire_at:%H:%M} {each.outcome}" for each in found.decisions] == outcomes
    reasons = {each.fire_at: each.reason for each in found.decisions}
    assert reasons[_at("11:40:00")] == "older than the catch-up window of 600 s"
    assert all(each.reason for each in found.decisions if each.outcome is TickOutcome.MISSED)


def test_latest_does_not_fire_a_late_tick_beside_one_on_time():
    """The one on time is the latest."""
    found = plan(crontab("*/5 * * * *"), decided_until=_at("11:52:00"), now=_at("12:00:02"))

    assert _shown(found.decisions) == ["11:55:00 missed", "12:00:00 fired"]


def test_a_year_of_seconds_is_decided_at_once_and_in_few_rows():
    """Bounded, however long nobody looked: one row stands for the many."""
    schedule = crontab("* * * * * *", overlap="allow")
    began = time.process_time()

    found = plan(schedule, decided_until=NOON - timedelta(days=365), now=NOON)

    assert time.process_time() - began < 2
    assert len(found.decisions) <= 8
    assert found.decisions[0].reason == (
        "more than 10000 ticks from 2025-03-01 12:00:01 to 2026-03-01 11:50:00 UTC:"
        " older than the catch-up window of 600 s"
    )
    assert found.decided_until == NOON


def test_a_summary_says_how_many_it_stands_for():
    """Up to a hundred missed ticks have rows of their own; more share the last one's."""
    schedule = crontab("* * * * *", catchup="none", catchup_window=timedelta(0))

    hundred = plan(schedule, decided_until=_at("09:59:30"), now=_at("11:39:30"))
    more = plan(schedule, decided_until=_at("09:59:30"), now=_at("11:40:30"))

    assert len(hundred.decisions) == 100
    assert [each.fire_at for each in more.decisions] == [_at("11:40:00")]
    assert more.decisions[0].reason == (
        "101 ticks from 2026-03-01 10:00:00 to 2026-03-01 11:40:00 UTC:"
        " older than the catch-up window of 0 s"
    )


def test_all_comes_in_portions():
    """Six hundred seconds to catch up with are decided by several looks, each tick once."""
    schedule = crontab("* * * * * *", catchup="all", overlap="allow")
    decided_until, fired, looks = NOON - timedelta(seconds=595), Counter[datetime](), 0

    while decided_until < NOON:
        found = plan(schedule, decided_until=decided_until, now=NOON)
        assert len(found.decisions) <= MAX_AT_ONCE + 5
        assert found.next_tick_at <= NOON or found.decided_until == NOON
        fired.update(each.fire_at for each in found.decisions)
        decided_until, looks = found.decided_until, looks + 1

    assert fired == Counter(NOON - n * SECOND for n in range(595))
    assert looks == 3


@pytest.mark.parametrize(
    ("overlap", "previous_open", "outcomes"),
    [
        ("skip", False, ["fired", "skipped", "skipped"]),
        ("skip", True, ["skipped", "skipped", "skipped"]),
        ("queue", False, ["fired", "waiting", "skipped"]),
        ("queue", True, ["waiting", "skipped", "skipped"]),
        ("allow", True, ["fired", "fired", "fired"]),
    ],
)
def test_overlap(overlap, previous_open, outcomes):
    """What a tick meets: the previous tick's task, and with `queue` at most one that waits."""
    found = plan(
        crontab("* * * * * *", overlap=overlap),
        decided_until=NOON - 3 * SECOND, now=NOON, previous_open=previous_open,
    )  # fmt: skip

    assert [each.outcome.value for each in found.decisions] == outcomes


def test_a_tick_waits_until_the_previous_task_has_ended():
    """Released it fires first, and what is due besides meets it."""
    schedule = crontab("* * * * * *", overlap="queue")
    waiting = NOON - 30 * SECOND
    since = NOON - SECOND

    still = plan(schedule, decided_until=since, now=NOON, previous_open=True, waiting=waiting)
    ended = plan(schedule, decided_until=since, now=NOON, previous_open=False, waiting=waiting)

    assert _shown(still.decisions) == ["12:00:00 skipped"]
    assert _shown(ended.decisions) == ["11:59:30 fired", "12:00:00 waiting"]
    assert [each.released for each in ended.decisions] == [True, False]


def test_without_a_task_to_make_ticks_are_missed_with_the_reason():
    """An agent that is gone, an input that no longer validates."""
    found = plan(
        crontab("* * * * * *"), decided_until=NOON - SECOND, now=NOON, blocked="no agent named 'x'"
    )

    assert _shown(found.decisions) == ["12:00:00 missed"]
    assert found.decisions[0].reason == "no agent named 'x'"


schedules = st.builds(
    Crontab,
    expression=st.sampled_from(
        ("* * * * * *", "*/7 * * * * *", "* * * * *", "*/5 * * * *", "30 * * * *", "30 2 * * *")
    ),
    timezone=st.sampled_from(("UTC", "Europe/Berlin", "Australia/Lord_Howe")),
    catchup=st.sampled_from(CatchUp),
    catchup_window=st.sampled_from((timedelta(0), timedelta(minutes=1), timedelta(minutes=10))),
    overlap=st.sampled_from(Overlap),
)
pauses = st.one_of(
    st.timedeltas(timedelta(milliseconds=1), timedelta(seconds=3)),
    st.timedeltas(timedelta(milliseconds=1), timedelta(seconds=90)),
)


@given(
    schedule=schedules,
    start=st.datetimes(datetime(2026, 1, 1), datetime(2026, 12, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    looks=st.lists(st.tuples(pauses, st.booleans()), min_size=1, max_size=6),
)
def test_each_tick_is_decided_exactly_once_over_any_looks(schedule, start, looks):
    """However often and late somebody looks: every due tick, none twice, nothing else."""
    decided_until = now = start
    decided: list[datetime] = []
    waiting = None

    for pause, previous_open in looks:
        now += pause
        found = plan(
            schedule, decided_until=decided_until, now=now,
            previous_open=previous_open, waiting=waiting,
        )  # fmt: skip
        for each in found.decisions:
            if each.released:
                assert each.fire_at == waiting
                waiting = None
            else:
                decided.append(each.fire_at)
            if each.outcome is TickOutcome.WAITING:
                assert waiting is None
                waiting = each.fire_at
        decided_until = found.decided_until

    assert decided_until == now
    assert decided == list(schedule.ticks_between(start, now))
