"""The fold: whatever order, batches and repetitions messages come in, the record says the same."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import DeadReason
from orchestrator.event import DeadLetter, EventKind, TaskEvent
from orchestrator.fold import fold
from orchestrator.record import HeardEvent, SeenTask, TaskRecord
from orchestrator.task import Task, TaskState, derived_id, new_id
from orchestrator.usage import ModelCall

NOW = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
TASK = Task(task_id="0198a5f2-0000-7000-8000-000000000001", agent="triage", input={"n": 1})


def seen(entry: int, *, attempt: int = 1, task: Task = TASK, stream: str = "tasks") -> SeenTask:
    task = task.model_copy(update={"attempt": attempt})
    return SeenTask(
        task=task, digest=task.digest, stream=stream, entry_id=f"{entry}-0",
        at=NOW + timedelta(seconds=entry), said_by="test",
    )  # fmt: skip


def heard(entry: int, kind: EventKind, *, attempt: int = 1, task_id: str = TASK.task_id, **more):
    event = TaskEvent(
        task_id=task_id, agent="triage", event=kind, at=NOW + timedelta(seconds=entry),
        attempt=attempt, worker=f"w{attempt}", **more,
    )  # fmt: skip
    return HeardEvent(
        event=event, stream="results", entry_id=f"{entry}-0", said_by="test",
        at=NOW + timedelta(seconds=entry),
    )  # fmt: skip


def spent(entry: int, *, attempt: int = 1, **more) -> HeardEvent:
    """A call of a model, answered."""
    said = heard(entry, EventKind.USAGE, attempt=attempt)
    call_id = derived_id("calls", str(entry))
    call = ModelCall(id=call_id, model="scripted:one", at=said.event.at, **more)
    return said._replace(call=call)


@dataclass
class Memory:
    """Tables as dicts, written by the rules of db.recording."""

    tasks: dict = field(default_factory=dict)
    results: dict = field(default_factory=dict)
    attempts: dict = field(default_factory=dict)
    audit: dict = field(default_factory=dict)
    letters: dict = field(default_factory=dict)
    calls: dict = field(default_factory=dict)

    def take(self, batch) -> None:
        writes = fold(self.tasks, batch)
        self.tasks.update({key: replace(row) for key, row in writes.tasks.items()})
        for key, row in writes.results.items():
            self.results.setdefault(key, row)
        for key, row in writes.attempts.items():
            if key not in self.attempts or self.attempts[key].state == "running":
                self.attempts[key] = row
        self.calls.update({each.id: each for each in writes.calls})
        self.audit.update({entry.id: entry for entry in writes.audit})
        self.letters.update({(each.stream, each.entry_id): each for each in writes.dead_letters})


HISTORY = [
    seen(1),
    heard(2, EventKind.STARTED),
    heard(3, EventKind.RETRYING, error={"type": "E", "message": "m"}, run_at=NOW),
    seen(4, attempt=2),
    heard(5, EventKind.STARTED, attempt=2),
    heard(6, EventKind.SUCCEEDED, attempt=2, output={"ok": True}),
]


def test_a_retry_is_due_by_redis_clock():
    """Of a worker whose clock is ahead; or else what Redis loses would be brought on as late."""
    memory, minutes = Memory(), timedelta(minutes=2)
    retry = heard(2, EventKind.RETRYING)
    ahead = {"at": retry.at + minutes, "run_at": retry.at + minutes + timedelta(seconds=5)}
    memory.take([seen(1), retry._replace(event=retry.event.model_copy(update=ahead))])
    assert memory.tasks[TASK.task_id].run_at == retry.at + timedelta(seconds=5)

    far = {"at": retry.at.replace(year=2), "run_at": retry.at.replace(year=9998)}
    memory = Memory()
    memory.take([seen(1), retry._replace(event=retry.event.model_copy(update=far))])
    assert memory.tasks[TASK.task_id].run_at == far["run_at"]


@given(
    order=st.permutations(HISTORY + HISTORY[:3]),
    cuts=st.lists(st.integers(min_value=0, max_value=9), max_size=4),
)
def test_any_order_and_any_batches_come_to_one_end(order, cuts):
    """At least once, from two streams at once: one end, what was asked for, one result."""
    memory = Memory()
    edges = [0, *sorted(cuts), len(order)]
    for start, end in pairwise(edges):
        if start < end:
            memory.take(order[start:end])

    (row,) = memory.tasks.values()
    assert row.state is TaskState.SUCCEEDED
    assert row.attempt == 2
    assert row.input == {"n": 1}
    assert row.digest == TASK.digest
    assert memory.results[TASK.task_id].output == {"ok": True}
    said = [each.action for each in memory.audit.values()]
    assert said.count("task.succeeded") == 1
    assert said.count("task.queued") >= 1


CALLS = [spent(2), spent(3), spent(5, attempt=2), spent(7, attempt=2)]  # the last after the end


@given(
    order=st.permutations(HISTORY + CALLS + CALLS[:2]),
    cuts=st.lists(st.integers(min_value=0, max_value=12), max_size=4),
)
def test_every_call_of_a_model_is_kept_once_and_changes_no_state(order, cuts):
    """Before the task is known, while it runs, after its end: what was spent was spent."""
    memory = Memory()
    edges = [0, *sorted(cuts), len(order)]
    for start, end in pairwise(edges):
        if start < end:
            memory.take(order[start:end])

    assert sorted(memory.calls) == sorted(each.call.id for each in CALLS)
    (row,) = memory.tasks.values()
    assert (row.state, row.attempt, row.input) == (TaskState.SUCCEEDED, 2, {"n": 1})
    assert "attempt.superseded" not in {each.action for each in memory.audit.values()}


def test_a_call_of_a_task_that_nobody_knows_yet_starts_nothing():
    """It has a row, for its end to be recorded after; it does not look as if it ran."""
    memory = Memory()
    memory.take([spent(2)])
    (row,) = memory.tasks.values()
    assert (row.state, row.progress, row.started_at) == (TaskState.QUEUED, 0, None)
    assert not memory.audit

    later = NOW + timedelta(hours=1)
    memory.take([seen(3, task=TASK.model_copy(update={"run_at": later}))])
    (row,) = memory.tasks.values()
    assert (row.state, row.run_at, row.input) == (TaskState.SCHEDULED, later, {"n": 1})
    assert [each.action for each in memory.audit.values()] == ["task.scheduled"]


def test_an_end_that_is_read_again_is_no_second_end():
    """Redelivered, or by a group that was made anew: the audit says only what happened."""
    memory = Memory()
    end = heard(2, EventKind.SUCCEEDED, output=1, finished_at=NOW)
    memory.take([seen(1), end])
    memory.take([end])
    assert "attempt.superseded" not in {each.action for each in memory.audit.values()}

    memory.take([heard(3, EventKind.SUCCEEDED, attempt=2, output=2, finished_at=NOW)])
    assert "attempt.superseded" in {each.action for each in memory.audit.values()}


def test_the_first_end_stays():
    """P2: a second end of a task changes nothing, and the audit says that it came."""
    memory = Memory()
    memory.take([seen(1), heard(2, EventKind.CANCELLED)])
    memory.take([heard(3, EventKind.SUCCEEDED, output=1)])

    assert memory.tasks[TASK.task_id].state is TaskState.CANCELLED
    assert memory.results[TASK.task_id].output is None
    assert "attempt.superseded" in {each.action for each in memory.audit.values()}


def test_the_same_entry_again_says_nothing_new():
    """P4: the recorder died between commit and acknowledgement: a repetition is silent."""
    memory = Memory()
    memory.take(HISTORY)
    before = (dict(memory.audit), dict(memory.attempts))
    memory.take([HISTORY[3], HISTORY[4]])

    assert memory.tasks[TASK.task_id].state is TaskState.SUCCEEDED
    assert len(memory.audit) == len(before[0])


def test_another_content_under_a_known_id_is_a_dead_letter():
    """Design section 1: same id and other content never touches the task."""
    memory = Memory()
    other = TASK.model_copy(update={"input": {"n": 2}})
    memory.take([seen(1), seen(2, task=other)])

    assert memory.tasks[TASK.task_id].input == {"n": 1}
    (letter,) = memory.letters.values()
    assert letter.reason is DeadReason.TASK_ID_CONFLICT


def test_a_duplicate_is_said_so_and_changes_nothing():
    """Two entries of one task are one task; the audit knows of the second."""
    memory = Memory()
    memory.take([seen(1), seen(2)])

    assert memory.tasks[TASK.task_id].state is TaskState.QUEUED
    assert "task.duplicate" in {each.action for each in memory.audit.values()}


def test_a_start_after_a_crash_leaves_a_line_for_the_lost_attempt():
    """What a kill cost can be read in `attempts`."""
    memory = Memory()
    memory.take([seen(1), heard(2, EventKind.STARTED, started_at=NOW)])
    memory.take([heard(3, EventKind.STARTED, attempt=2, crashes=1)])
    memory.take([heard(4, EventKind.SUCCEEDED, attempt=2, crashes=1)])

    assert memory.attempts[TASK.task_id, 1].state == "crashed"
    assert memory.attempts[TASK.task_id, 1].worker == "w1"
    assert memory.attempts[TASK.task_id, 2].state == "succeeded"
    assert memory.tasks[TASK.task_id].crashes == 1


def test_an_attempt_whose_own_process_died_is_a_crash_of_its_own():
    """A line `crashed` and its audit, once; the start that follows adds no second."""
    memory = Memory()
    died = heard(2, EventKind.RETRYING, crashed=True, error={"type": "Crashed", "message": "m"})
    memory.take([seen(1), died])
    memory.take([died])
    memory.take([heard(3, EventKind.STARTED, attempt=2, crashes=1)])

    assert memory.attempts[TASK.task_id, 1].state == "crashed"
    assert memory.tasks[TASK.task_id].crashes == 1
    assert memory.tasks[TASK.task_id].state is TaskState.RUNNING
    actions = [each.action for each in memory.audit.values()]
    assert actions.count("attempt.crashed") == 1


def test_a_crash_heard_after_the_next_message_is_recorded_all_the_same():
    """A recorder that is behind reads the next attempt's message first."""
    memory = Memory()
    memory.take([seen(1)])
    memory.take([seen(3, attempt=2, task=TASK.model_copy(update={"crashes": 1}))])
    memory.take([heard(2, EventKind.RETRYING, crashed=True)])

    assert memory.attempts[TASK.task_id, 1].state == "crashed"
    assert memory.tasks[TASK.task_id].crashes == 1
    assert "attempt.crashed" in {each.action for each in memory.audit.values()}


def test_an_entry_that_is_no_tasks_leaves_the_task_alone():
    """A dead letter about an entry does not end the task of that id."""
    memory = Memory()
    letter = DeadLetter(
        stream="tasks", entry_id="9-0", reason=DeadReason.TASK_ID_CONFLICT, detail="d",
        fields={}, ends_task=False,
    )  # fmt: skip
    memory.take([seen(1), heard(2, EventKind.DEAD, dead_letter=letter)])

    assert memory.tasks[TASK.task_id].state is TaskState.QUEUED
    assert len(memory.letters) == 1


def test_a_task_accepted_in_the_database_is_seen_published():
    """Durability database: the recorder's sight of the entry is what `published_at` means."""
    record = TaskRecord(
        id=TASK.task_id, agent="triage", state=TaskState.QUEUED, progress=11, created_at=NOW,
        digest=TASK.digest,
    )  # fmt: skip
    memory = Memory(tasks={record.id: record})
    memory.take([seen(1)])

    assert memory.tasks[record.id].published_at is not None
    assert not memory.audit


@given(count=st.integers(min_value=1, max_value=30), data=st.data())
def test_tasks_in_one_batch_do_not_mix(count, data):
    """Each task of a batch keeps its own end."""
    tasks = [TASK.model_copy(update={"task_id": new_id()}) for _ in range(count)]
    messages = [seen(n, task=task) for n, task in enumerate(tasks)]
    messages += [
        heard(100 + n, EventKind.SUCCEEDED, task_id=task.task_id, output=n)
        for n, task in enumerate(tasks)
    ]
    memory = Memory()
    memory.take(data.draw(st.permutations(messages)))

    assert [memory.results[task.task_id].output for task in tasks] == list(range(count))


def test_what_an_unknown_task_says_of_a_time_to_come_begins_when_it_was_said():
    """P10: so that the reconciler looks at it, and not when that time has come."""
    said = heard(5, EventKind.STARTED, started_at=NOW + timedelta(hours=3))

    assert fold({}, [said]).tasks[TASK.task_id].created_at == NOW + timedelta(seconds=5)


def test_an_end_that_comes_second_leaves_no_letter():
    """Redis lost its last writes, and a task that had ended was set aside: nothing to redrive."""
    letter = DeadLetter(
        stream="s", entry_id="9-0", reason=DeadReason.CRASHED, detail="d", fields={}
    )
    memory = Memory()
    memory.take([seen(1), heard(2, EventKind.SUCCEEDED, output={})])
    memory.take([heard(3, EventKind.DEAD, attempt=2, dead_letter=letter)])

    assert not memory.letters
    assert memory.results[TASK.task_id].state is TaskState.SUCCEEDED
    assert "attempt.superseded" in {each.action for each in memory.audit.values()}
