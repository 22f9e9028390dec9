"""Small rules: when to retry, what to read, what ends an attempt before it starts."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.db.bulk import json_text
from orchestrator.errors import DeadReason
from orchestrator.outcome import Crashed, Expired, Fault, Postponed, SetAside
from orchestrator.retry import Retry
from orchestrator.runtime.flight import after_crash, before_start, is_suspect
from orchestrator.streams.lanes import steps
from orchestrator.streams.names import Keys
from orchestrator.task import Priority, Task, TaskState, progress

NOW = datetime(2026, 11, 23, tzinfo=UTC)
TASK = Task(task_id="0198a5f2-0000-7000-8000-000000000001", agent="a", input={})


def test_retry_doubles_and_gives_up():
    """About 1 s, then 2 s, then give up after the third attempt."""
    retry = Retry(jitter=lambda: 1.0)
    assert [retry.delay_after(n) for n in (1, 2, 3)] == [
        timedelta(seconds=1),
        timedelta(seconds=2),
        None,
    ]


@given(attempt=st.integers(1, 10_000), jitter=st.floats(0, 1))
def test_a_delay_stays_between_half_and_the_ceiling(attempt, jitter):
    """Jitter never takes more than half, and no attempt overflows."""
    delay = Retry(max_attempts=20_000, jitter=lambda: jitter).delay_after(attempt)
    assert delay is not None
    assert timedelta(seconds=0.5) <= delay <= timedelta(minutes=5)


@given(free=st.integers(1, 500), turn=st.integers(0, 1000), queues=st.integers(1, 4))
def test_every_lane_is_read_and_high_first(free, turn, queues):
    """Each lane is asked for the whole of what is left, in order of priority."""
    lanes = [Keys("p").lanes(f"q{n}") for n in range(queues)]
    found = steps(lanes, free=free, turn=turn)
    assert {key for key, _ in found} >= {key for queue in lanes for key in queue}
    assert all(0 < most <= free for _, most in found)
    last = [key for key, most in found if most == free][-3 * queues :]
    assert last[0].endswith(":high")
    assert last[-1].endswith(":low")


def test_a_low_task_gets_its_turn_in_a_full_house():
    """With one slot, of 81 turns one asks low first and eight or nine ask normal first."""
    lanes = [Keys("p").lanes("default")]
    first = [steps(lanes, free=1, turn=turn)[0][0] for turn in range(81)]
    assert first.count("p:agent:tasks:low") == 1
    assert first.count("p:agent:tasks") in (8, 9)


def test_what_ends_an_attempt_before_it_starts():
    """Too many crashes, expired, not due: each is a value; otherwise it starts."""

    def asked(task: Task, *, crashes: int = 0, taken: datetime = NOW):
        return before_start(task, crashes=crashes, taken=taken, now=NOW, max_starts=3)

    later = TASK.model_copy(update={"run_at": NOW + timedelta(seconds=5)})
    assert asked(TASK) is None
    # Workers that die again and again are hardly this task's fault; thirty starts are enough.
    assert asked(TASK, crashes=29) is None
    assert isinstance(found := asked(TASK, crashes=30), SetAside)
    assert found.reason is DeadReason.CRASHED
    assert asked(TASK.model_copy(update={"expires_at": NOW})) == Expired()
    assert asked(later) == Postponed()
    # Due by Redis' clock when it took the entry: this machine's clock is late, not the task early.
    assert asked(later, taken=NOW + timedelta(seconds=6)) is None


def test_who_is_suspect():
    """P6: the third start runs alone, the second where a worker ended in its code."""

    def suspects(most: int, *, named: bool) -> list[bool]:
        return [is_suspect(n, max_starts=most, named=named) for n in range(4)]

    assert suspects(3, named=False) == [False, False, True, True]
    assert suspects(1, named=False) == [False, True, True, True]
    assert suspects(3, named=True) == [False, True, True, True]


def test_what_the_death_of_an_attempts_own_process_means():
    """P6: a start that did not end; at the third it is set aside with the evidence."""
    fault = Fault(type="Crashed", message="child 7 ended by SIGABRT", traceback="Fatal: line 13")
    crashed = Crashed(fault, timedelta(seconds=1))

    assert after_crash(crashed, crashes=0, max_starts=3) == crashed
    assert after_crash(crashed, crashes=1, max_starts=3) == crashed
    found = after_crash(crashed, crashes=2, max_starts=3)
    assert isinstance(found, SetAside)
    assert found.reason is DeadReason.CRASHED
    assert "3 starts" in found.detail
    assert "SIGABRT" in found.detail
    assert "line 13" in found.detail
    # Its workers died more often than that: its own first death is the last.
    assert isinstance(after_crash(crashed, crashes=5, max_starts=3), SetAside)


def test_progress_orders_reports():
    """A later attempt is later than anything of the one before; an end is later than all."""
    walk = [
        progress(TaskState.SCHEDULED, 1), progress(TaskState.QUEUED, 1),
        progress(TaskState.RUNNING, 1), progress(TaskState.RETRYING, 1),
        progress(TaskState.QUEUED, 2), progress(TaskState.RUNNING, 2),
        progress(TaskState.FAILED, 2),
    ]  # fmt: skip
    assert walk == sorted(set(walk))


def test_nul_does_not_reach_postgres():
    """jsonb refuses NUL; a backslash before the text u0000 is no NUL and stays."""
    assert json_text({"a": "x\0y"}) == '{"a":"x\ufffdy"}'
    assert json_text({"a": "\\u0000"}) == '{"a":"\\\\u0000"}'
    assert json_text({"a": "\\\0"}) == '{"a":"\\\\\ufffd"}'


def test_lanes_are_the_designs():
    """Default queue and normal priority is exactly the plain stream."""
    keys = Keys("aurora")
    assert keys.lane("default", Priority.NORMAL) == "aurora:agent:tasks"
    assert keys.lane("default", Priority.HIGH) == "aurora:agent:tasks:high"
    assert keys.lane("llm", Priority.LOW) == "aurora:agent:tasks:llm:low"
