"""The dashboard's rules: what text looks like, what the first page says, why a task waits."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.dashboard.forms import inside
from orchestrator.dashboard.health import Found, Level, judge
from orchestrator.dashboard.pages.overview import HOUR, minutes
from orchestrator.dashboard.standing import Surroundings, sentence
from orchestrator.dashboard.text import LONGEST, ago, as_json, brief, counted, duration, visible
from orchestrator.dashboard.timeline import WIDTH, bars
from orchestrator.db.models import AttemptRow, TaskRow
from orchestrator.db.overview import Ended, Group
from orchestrator.db.statistics import RecordStatistics
from orchestrator.streams.statistics import GroupStatistics, StreamStatistics
from orchestrator.task import TaskState

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
IDLE = RecordStatistics(tasks={}, oldest_waiting={}, unpublished=0, dead_letters_open=0, spent=())
# Direction and width marks, embeddings, isolates, tags.
TURNING = "\u061c\u200b\u200e\u200f\u202a\u202e\u2060\u2066\u2069\ufeff\U000e0041"
BLANK = "\u115f\u1160\u17b4\u17b5\u3164\uffa0"  # letters that print nothing
CALM = Found(record=IDLE, streams=())


@given(st.text(st.characters(categories=["Cc", "Cs", "Zl", "Zp"]) | st.sampled_from(TURNING)))
def test_nothing_of_a_text_is_hidden(text: str):
    """Controls and what turns the direction of reading are named, whatever they are."""
    assert all(each in "\t\n" or each.isprintable() for each in visible(text))


@given(st.text(st.characters(categories=["L", "N", "P", "S", "Mn"], exclude_characters=BLANK)))
def test_text_that_is_seen_stays(text: str):
    """In whatever script."""
    assert visible(text) == text


def test_what_is_named():
    """As people know it."""
    assert visible("a\x1b[2J") == "a␛[2J"
    assert visible("a\u202eb") == "a⟨U+202E⟩b"
    assert visible("two\nlines\tand a tab") == "two\nlines\tand a tab"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0004, "0 ms"), (0.42, "420 ms"), (0.9996, "1.0 s"), (3.14, "3.1 s"), (59, "59 s"),
        (60, "1 min"), (125, "2 min 5 s"), (3600, "1 h"), (11_400, "3 h 10 min"),
        (90_000, "1 d 1 h"), (-1, "0 ms"),
    ],
)  # fmt: skip
def test_durations(seconds: float, said: str):
    """Two units at most."""
    assert duration(seconds) == said
    assert duration(timedelta(seconds=seconds)) == said


def test_moments_and_counts():
    """Read at a glance; a count that was ended says so."""
    assert ago(NOW - timedelta(seconds=200), NOW) == "3 min ago"
    assert ago(NOW + timedelta(hours=2), NOW) == "in 2 h"
    assert ago(NOW, NOW) == "now"
    assert counted(9_312, 10_000) == "9,312"
    assert counted(10_001, 10_000) == "10k+"
    assert counted(100, 99) == "99+"


def test_long_values_are_cut():
    """A page stays a page, whatever an agent gave."""
    assert len(as_json("x" * 10 * LONGEST)) < LONGEST + 100
    assert brief({"a": "b" * 1000}, 20).endswith("…")
    assert len(brief("x" * 1000, 20)) == 20


@given(st.text())
def test_no_address_leads_elsewhere(path: str):
    """Of what a link or a form says where to go, our own pages alone."""
    found = inside(path)
    assert found.startswith("/")
    assert found[1:2] not in {"/", "\\"}


def test_all_well_is_one_calm_line():
    """And nothing needs anybody."""
    found = judge(CALM)
    assert (found.level, found.word, list(found.concerns)) == (Level.FINE, "Working", [])


def test_what_is_wrong_with_the_system_comes_first():
    """The sentence says it; failures of tasks are no illness of the system that reports them."""
    waiting = RecordStatistics(
        tasks={}, oldest_waiting={"default": 3, "slow": 700}, unpublished=0, dead_letters_open=0,
        spent=(),
    )  # fmt: skip
    failed = [Group(cause="TimeoutError", count=4, latest=NOW, example="late", agent="triage")]

    found = judge(Found(record=waiting, streams=(), failed=failed))
    assert (found.level, found.word) == (Level.BAD, "Not working")
    assert found.sentence == "Queue slow is 11 min 40 s behind."
    assert [each.title for each in found.concerns] == [
        "Queue slow is 11 min 40 s behind",
        "4 failed: triage, TimeoutError",
    ]
    assert found.concerns[0].command == "AURORA_QUEUES=slow aurora worker"
    assert "No worker" in found.concerns[0].said

    served = StreamStatistics(
        key="aurora:agent:tasks:slow:high",
        length=1,
        groups=(GroupStatistics(group="orchestrator", pending=1, backlog=0, oldest_pending=0),),
    )
    busy = judge(Found(record=waiting, streams=(served,)))
    assert "busy" in busy.concerns[0].said
    only_failed = judge(Found(record=IDLE, streams=(), failed=failed))
    assert (only_failed.level, only_failed.word) == (Level.FINE, "Working")
    assert "1 thing needs somebody" in only_failed.sentence


def test_a_server_that_is_away_is_said():
    """With what to type."""
    found = judge(Found(record=None, streams=None))
    assert found.sentence == "Redis does not answer; Postgres does not answer in time."
    assert {each.command for each in found.concerns} == {"aurora doctor"}


def test_every_minute_has_its_line():
    """Also those in which nothing ended; ends of every kind are counted."""
    at = int(NOW.timestamp())
    found = minutes(
        [
            Ended(minute=at, state="succeeded", count=3),
            Ended(minute=at, state="expired", count=2),
            Ended(minute=at - 120, state="cancelled", count=1),
        ],
        NOW,
        HOUR,
    )
    assert len(found) == 60
    assert (found[-1].succeeded, found[-1].failed, found[-3].cancelled) == (3, 2, 1)
    assert sum(each.all for each in found) == 6


def _task(state: TaskState, **more) -> TaskRow:
    given = {
        "created_at": NOW - timedelta(minutes=5), "published_at": NOW, "attempt": 1,
        "agent": "echo", "queue": "side", "worker": "worker:1", "run_at": None,
        "started_at": None, "finished_at": None, "cancel_requested_at": None,
    }  # fmt: skip
    return TaskRow(state=state.value, **given | more)


@pytest.mark.parametrize(
    ("task", "around", "said"),
    [
        (_task(TaskState.QUEUED), (True, True), "waits its turn in queue side"),
        (_task(TaskState.QUEUED), (True, False), "No worker holds work of queue side"),
        (_task(TaskState.QUEUED), (True, None), "waits its turn"),
        (_task(TaskState.QUEUED), (False, True), "No agent named echo is loaded here"),
        (_task(TaskState.QUEUED, published_at=None), (True, True), "waits in Postgres"),
        (_task(TaskState.RETRYING, run_at=NOW + timedelta(seconds=48)), (True, True), "in 48 s"),
        (_task(TaskState.SCHEDULED, run_at=NOW + timedelta(hours=1)), (True, True), "not due yet"),
        (_task(TaskState.RUNNING, started_at=NOW - timedelta(seconds=9)), (True, True), "9.0 s on"),
        (_task(TaskState.DEAD), (True, True), "set aside"),
        (_task(TaskState.SUCCEEDED), (True, True), ""),
    ],
)
def test_why_a_task_is_where_it_is(task, around, said):
    """In a sentence; where somebody must do something, with what to type."""
    why, command = sentence(
        task, None, Surroundings(knows_agent=around[0], queue_is_served=around[1]), NOW
    )
    assert said in why
    if "No worker" in why:
        assert command == "AURORA_QUEUES=side aurora worker"


def test_a_timeline_fits_its_drawing():
    """The wait and each attempt, however short beside the others."""
    begun = NOW - timedelta(minutes=4)
    tries = [
        AttemptRow(attempt=1, state="retrying", started_at=begun,
                   finished_at=begun + timedelta(milliseconds=1)),
        AttemptRow(attempt=2, state="running", started_at=begun + timedelta(minutes=1)),
    ]  # fmt: skip
    found = bars(_task(TaskState.RUNNING, started_at=begun), tries, NOW)

    assert [each.label for each in found] == ["Waited", "Attempt 1", "Attempt 2"]
    assert all(each.left >= 0 and each.left + each.width <= WIDTH + 0.2 for each in found)
    assert all(each.width > 1 for each in found)
    assert bars(_task(TaskState.QUEUED), [], NOW) == []
