"""What a batch of messages does to the record: a pure rule, whatever order they come in.

The recorder reads from several streams at once, sees everything at least once, and may hear of a
task's end before it has seen the task. So each task is folded over what is known of it: a report
counts only if it is later than what stands (`task.progress`), and the first end stays.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from orchestrator.errors import DeadReason, OrchestratorError
from orchestrator.event import DeadLetter, EventKind, TaskEvent
from orchestrator.task import Task, TaskId, TaskState, derived_id, new_id, progress


class Unrecordable(OrchestratorError):
    """Postgres refuses something in these messages; it will refuse it again."""


@dataclass(slots=True, kw_only=True)
class TaskRecord:
    """A row of `tasks`; the columns that a fold may change come first."""

    id: TaskId
    agent: str
    state: TaskState
    progress: int
    created_at: datetime
    attempt: int = 1
    crashes: int = 0
    digest: str | None = None
    run_at: datetime | None = None
    published_at: datetime | None = None
    stream: str | None = None
    entry_id: str | None = None
    worker: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    queue: str = "default"
    priority: str = "normal"
    tenant: str = "default"
    input: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    idempotency_key: str | None = None
    parent_id: TaskId | None = None
    root_id: TaskId | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenTask:
    """A message on a tasks stream."""

    task: Task
    digest: str
    stream: str
    entry_id: str
    at: datetime  # when Redis took the entry
    said_by: str
    said_at: str | None = None  # a timestamp that could not be used


@dataclass(frozen=True, slots=True, kw_only=True)
class HeardEvent:
    """A message on the results stream."""

    event: TaskEvent
    stream: str
    entry_id: str
    said_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """A row of `audit_events`."""

    id: str
    at: datetime
    action: str
    actor: str
    object_type: str
    object_id: str
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    detail: dict[str, Any] | None = None
    producer: str | None = None
    sequence: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRecord:
    """A row of `attempts`; `crashed` is an attempt whose worker fell silent."""

    task_id: TaskId
    attempt: int
    state: str  # running, succeeded, failed, retrying, crashed, dead
    error: dict[str, Any] | None = None
    usage: dict[str, Any] | None = None
    worker: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultRecord:
    """A row of `results`."""

    task_id: TaskId
    agent: str
    state: TaskState
    attempt: int
    output: Any
    error: dict[str, Any] | None
    usage: dict[str, Any] | None
    worker: str | None
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterRecord:
    """A row of `dead_letters`."""

    id: str
    stream: str
    entry_id: str
    task_id: TaskId | None
    agent: str | None
    reason: DeadReason
    detail: str
    fields: dict[str, str]
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenTask:
    """A row of a task that has not ended, as the reconciler compares it with Redis."""

    task_id: TaskId
    agent: str
    queue: str
    priority: str
    state: TaskState
    progress: int
    attempt: int
    crashes: int
    stream: str | None
    entry_id: str | None
    created_at: datetime
    cancel_requested_by: str | None
    task: Task | None  # None: its message was never read

    def next_message(self) -> Task | None:
        """The message that brings it on again, None where nobody knows what it asked for.

        A run that had begun counts as a start that did not end; a retry is the next attempt.
        """
        if self.task is None:
            return None
        begun = self.state in (TaskState.RUNNING, TaskState.WAITING)
        further = begun or self.state is TaskState.RETRYING
        return self.task.model_copy(
            update={
                "attempt": self.attempt + 1 if further else self.attempt,
                "crashes": self.crashes + 1 if begun else self.crashes,
            }
        )


@dataclass(slots=True)
class Writes:
    """What to write, in one transaction."""

    tasks: dict[TaskId, TaskRecord] = field(default_factory=dict)
    attempts: dict[tuple[TaskId, int], AttemptRecord] = field(default_factory=dict)
    results: dict[TaskId, ResultRecord] = field(default_factory=dict)
    dead_letters: list[DeadLetterRecord] = field(default_factory=list)
    audit: list[AuditEntry] = field(default_factory=list)


def fold(known: Mapping[TaskId, TaskRecord], messages: Iterable[SeenTask | HeardEvent]) -> Writes:
    """What `messages` do to the record of which `known` are the rows that exist."""
    folding = _Fold(known)
    for message in messages:
        if isinstance(message, SeenTask):
            folding.see(message)
        else:
            folding.hear(message)
    return folding.writes


def accepted(task: Task, *, digest: str, now: datetime, published: bool = False) -> TaskRecord:
    """The row of a task that has just been accepted."""
    later = task.run_at is not None and task.run_at > now
    state = TaskState.SCHEDULED if later else TaskState.QUEUED
    return TaskRecord(
        id=task.task_id,
        agent=task.agent,
        state=state,
        progress=progress(state, task.attempt),
        created_at=now,
        attempt=task.attempt,
        crashes=task.crashes,
        digest=digest,
        run_at=task.run_at,
        published_at=now if published else None,
        queue=task.queue,
        priority=task.priority.value,
        tenant=task.tenant,
        input=task.input,
        metadata=task.metadata or None,
        idempotency_key=task.idempotency_key,
        parent_id=task.parent_id,
        root_id=task.root_id,
        expires_at=task.expires_at,
    )


def state_changed(
    record: TaskRecord, *, before: TaskState | None, at: datetime, actor: str, **detail: Any
) -> AuditEntry:
    """The audit entry of a change of state, written in the transaction that changes it."""
    return AuditEntry(
        id=new_id(),
        at=at,
        action=f"task.{record.state.value}",
        actor=actor,
        object_type="task",
        object_id=record.id,
        before={"state": before.value} if before else None,
        after={"state": record.state.value, "attempt": record.attempt},
        detail={"agent": record.agent, **detail},
    )


class _Fold:
    def __init__(self, known: Mapping[TaskId, TaskRecord]) -> None:
        self.known = known
        self.writes = Writes()

    def see(self, seen: SeenTask) -> None:
        """A message on a tasks stream: a new task, the next attempt's message, or a duplicate."""
        record = self._record(seen.task.task_id)
        fresh = accepted(seen.task, digest=seen.digest, now=seen.at, published=True)
        fresh.stream, fresh.entry_id = seen.stream, seen.entry_id
        if record is None:
            self.writes.tasks[fresh.id] = fresh
            noted = {"said_at": seen.said_at} if seen.said_at else {}
            self._changed(fresh, None, seen.at, seen.said_by, entry_id=seen.entry_id, **noted)
        elif record.digest is None:
            self._complete(record, fresh)
        elif record.digest != seen.digest:
            self._conflict(seen)
        else:
            self._seen_again(record, fresh, seen)

    def hear(self, heard: HeardEvent) -> None:
        """A message on the results stream."""
        event = heard.event
        letter = event.dead_letter
        if letter is not None:
            self._dead_letter(letter, event, heard.said_by)
            if not letter.ends_task:
                return
        record = self._record(event.task_id) or self._unseen(event)
        if record.state.is_terminal:
            self._superseded(record, heard)
            return
        before, state = record.state, event.event.state
        self._crashed_before(record, event)
        self._attempt(record, event, before)
        if progress(state, event.attempt) <= record.progress and not state.is_terminal:
            return
        record.state, record.progress = state, progress(state, event.attempt)
        record.attempt, record.crashes = event.attempt, max(record.crashes, event.crashes)
        record.worker = event.worker or record.worker
        record.started_at = event.started_at or record.started_at
        record.run_at = event.run_at if state is TaskState.RETRYING else record.run_at
        if state.is_terminal:
            record.finished_at = event.finished_at or event.at
            self.writes.results[record.id] = _result(record, event)
        self._changed(record, before, event.at, event.worker or heard.said_by)

    def _record(self, task_id: TaskId) -> TaskRecord | None:
        found = self.writes.tasks.get(task_id)
        if found is None and (standing := self.known.get(task_id)) is not None:
            found = self.writes.tasks[task_id] = replace(standing)
        return found

    def _unseen(self, event: TaskEvent) -> TaskRecord:
        """A task whose message we have not read yet: the row begins with what the event says."""
        record = TaskRecord(
            id=event.task_id,
            agent=event.agent,
            state=TaskState.QUEUED,
            progress=0,
            created_at=event.started_at or event.at,
        )
        self.writes.tasks[record.id] = record
        return record

    def _complete(self, record: TaskRecord, fresh: TaskRecord) -> None:
        """The message of a task that is known from its events alone: what it asked for."""
        for name in (
            "digest", "queue", "priority", "tenant", "input", "metadata", "idempotency_key",
            "parent_id", "root_id", "expires_at", "created_at", "published_at", "stream",
            "entry_id",
        ):  # fmt: skip
            setattr(record, name, getattr(fresh, name))
        # The events stand above the message; say that it was queued all the same.
        self.writes.audit.append(
            state_changed(
                replace(fresh, attempt=record.attempt), before=None, at=fresh.created_at,
                actor=fresh.stream or "", entry_id=fresh.entry_id,
            )
        )  # fmt: skip

    def _seen_again(self, record: TaskRecord, fresh: TaskRecord, seen: SeenTask) -> None:
        same_entry = (record.stream, record.entry_id) == (seen.stream, seen.entry_id)
        first_sight = record.published_at is None
        record.published_at = record.published_at or seen.at
        record.stream, record.entry_id = seen.stream, seen.entry_id
        if fresh.progress > record.progress and not record.state.is_terminal:
            before = record.state
            record.state, record.progress = fresh.state, fresh.progress
            record.attempt = fresh.attempt
            record.crashes = max(record.crashes, fresh.crashes)
            self._changed(record, before, seen.at, seen.said_by, entry_id=seen.entry_id)
        elif not first_sight and not same_entry:
            self._say("task.duplicate", seen, {"agent": record.agent, "state": record.state.value})

    def _conflict(self, seen: SeenTask) -> None:
        self._say("task.conflict", seen, {"agent": seen.task.agent})
        self.writes.dead_letters.append(
            DeadLetterRecord(
                id=derived_id(seen.stream, seen.entry_id),
                stream=seen.stream,
                entry_id=seen.entry_id,
                task_id=seen.task.task_id,
                agent=seen.task.agent,
                reason=DeadReason.TASK_ID_CONFLICT,
                detail="the task exists with another agent or input; a new task needs a new id",
                fields={"data": seen.task.model_dump_json(exclude_defaults=True)},
                created_at=seen.at,
            )
        )

    def _dead_letter(self, letter: DeadLetter, event: TaskEvent, said_by: str) -> None:
        self.writes.dead_letters.append(
            DeadLetterRecord(
                id=derived_id(letter.stream, letter.entry_id),
                stream=letter.stream,
                entry_id=letter.entry_id,
                task_id=event.task_id if event.agent else None,
                agent=event.agent or None,
                reason=letter.reason,
                detail=letter.detail,
                fields=letter.fields,
                created_at=event.at,
            )
        )
        self.writes.audit.append(
            AuditEntry(
                id=derived_id(f"{letter.stream}:dead", letter.entry_id),
                at=event.at,
                action="message.dead_lettered",
                actor=event.worker or said_by,
                object_type="message",
                object_id=letter.entry_id,
                detail={
                    "stream": letter.stream,
                    "reason": letter.reason.value,
                    "task_id": event.task_id,
                },
            )
        )

    def _crashed_before(self, record: TaskRecord, event: TaskEvent) -> None:
        """This start follows one that never ended: the lost attempt gets its line."""
        if event.crashes <= record.crashes or event.attempt < 2:  # noqa: PLR2004 - attempts count from 1
            return
        key = (record.id, event.attempt - 1)
        self.writes.attempts[key] = AttemptRecord(
            task_id=record.id, attempt=event.attempt - 1, state="crashed",
            worker=record.worker if record.attempt == event.attempt - 1 else None,
            started_at=record.started_at if record.attempt == event.attempt - 1 else None,
            finished_at=event.at,
        )  # fmt: skip
        self.writes.audit.append(
            AuditEntry(
                id=new_id(), at=event.at, action="attempt.crashed",
                actor=event.worker or "worker", object_type="task", object_id=record.id,
                detail={"attempt": event.attempt - 1, "agent": record.agent},
            )
        )  # fmt: skip
        record.crashes = event.crashes

    def _attempt(self, record: TaskRecord, event: TaskEvent, before: TaskState) -> None:
        """A line for attempts worth one: a task that just succeeds at once needs none."""
        kind = event.event
        plain = kind in (EventKind.SUCCEEDED, EventKind.CANCELLED, EventKind.EXPIRED)
        if kind is EventKind.PROGRESS or (
            plain and event.attempt == 1 and before is not TaskState.RUNNING
        ):
            return
        self.writes.attempts[record.id, event.attempt] = AttemptRecord(
            task_id=record.id,
            attempt=event.attempt,
            state="running" if kind is EventKind.STARTED else kind.value,
            error=event.error,
            usage=event.usage,
            worker=event.worker,
            started_at=event.started_at or record.started_at,
            finished_at=event.finished_at,
        )

    def _superseded(self, record: TaskRecord, heard: HeardEvent) -> None:
        if not heard.event.event.state.is_terminal:
            return  # a straggler's "started": no news
        self.writes.audit.append(
            AuditEntry(
                id=derived_id(heard.stream, heard.entry_id),
                at=heard.event.at,
                action="attempt.superseded",
                actor=heard.event.worker or heard.said_by,
                object_type="task",
                object_id=record.id,
                detail={"attempt": heard.event.attempt, "event": heard.event.event.value,
                        "stands": record.state.value},
            )
        )  # fmt: skip

    def _changed(
        self, record: TaskRecord, before: TaskState | None, at: datetime, actor: str, **detail: Any
    ) -> None:
        self.writes.audit.append(state_changed(record, before=before, at=at, actor=actor, **detail))

    def _say(self, action: str, seen: SeenTask, detail: dict[str, Any]) -> None:
        self.writes.audit.append(
            AuditEntry(
                id=derived_id(f"{seen.stream}:{action}", seen.entry_id),
                at=seen.at,
                action=action,
                actor=seen.said_by,
                object_type="task",
                object_id=seen.task.task_id,
                detail={"stream": seen.stream, "entry_id": seen.entry_id, **detail},
            )
        )


def _result(record: TaskRecord, event: TaskEvent) -> ResultRecord:
    return ResultRecord(
        task_id=record.id,
        agent=record.agent,
        state=record.state,
        attempt=event.attempt,
        output=event.output,
        error=event.error,
        usage=event.usage,
        worker=event.worker,
        started_at=event.started_at or record.started_at,
        finished_at=event.finished_at or event.at,
    )


def set_aside(
    *,
    stream: str,
    entry_id: str,
    reason: DeadReason,
    detail: str,
    fields: dict[str, str],
    now: datetime,
) -> DeadLetterRecord:
    """The dead letter of a message that is no task's (yet); the same however often it is made."""
    return DeadLetterRecord(
        id=derived_id(stream, entry_id),
        stream=stream,
        entry_id=entry_id,
        task_id=None,
        agent=None,
        reason=reason,
        detail=detail,
        fields=fields,
        created_at=now,
    )
