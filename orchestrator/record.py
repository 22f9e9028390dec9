"""The rows of the record as values, and how the first of them comes about.

What messages do to them is `fold`'s to say; `db.recording` writes them.
"""

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple

from orchestrator.budget import Budget
from orchestrator.errors import DeadReason, OrchestratorError
from orchestrator.event import TaskEvent
from orchestrator.task import Task, TaskId, TaskState, derived_id, new_id, progress
from orchestrator.usage import ModelCall


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
    budget: dict[str, Any] | None = None  # as JSON
    traceparent: str | None = None


class SeenTask(NamedTuple):
    """A message on a tasks stream."""

    task: Task
    digest: str
    stream: str
    entry_id: str
    at: datetime  # when Redis took the entry
    said_by: str
    said_at: str | None = None  # a timestamp that could not be used

    @property
    def task_id(self) -> TaskId:
        """Whose message it is."""
        return self.task.task_id


class HeardEvent(NamedTuple):
    """A message on the results stream."""

    event: TaskEvent
    stream: str
    entry_id: str
    at: datetime  # when Redis took the entry
    said_by: str
    call: ModelCall | None = None  # of an event `usage`

    @property
    def task_id(self) -> TaskId:
        """Whose task it tells of."""
        return self.event.task_id


class AuditEntry(NamedTuple):
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


class AttemptRecord(NamedTuple):
    """A row of `attempts`; `crashed`: its worker fell silent, or its own process died.

    Its `usage` is reckoned from the calls of models, as a result's is.
    """

    task_id: TaskId
    attempt: int
    state: str  # running, succeeded, failed, retrying, crashed, superseded, dead
    error: dict[str, Any] | None = None
    worker: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None


class ResultRecord(NamedTuple):
    """A row of `results`."""

    task_id: TaskId
    agent: str
    state: TaskState
    attempt: int
    output: Any
    error: dict[str, Any] | None
    worker: str | None
    started_at: datetime | None
    finished_at: datetime | None


class ModelCallRecord(NamedTuple):
    """A row of `model_calls`: what one call cost, and whose it was."""

    id: str
    task_id: TaskId
    agent: str
    attempt: int
    model: str
    at: datetime
    seconds: float
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    tool_calls: int
    cost_usd: Decimal | None
    worker: str | None


class DeadLetterRecord(NamedTuple):
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
    # Each once, however often its message was read in a batch.
    calls: dict[ModelCallRecord, None] = field(default_factory=dict)
    # Whose usage may have to be reckoned again: it called a model, or stood in the record before
    # and so may have, and an attempt of it has news.
    spenders: set[TaskId] = field(default_factory=set)
    dead_letters: list[DeadLetterRecord] = field(default_factory=list)
    audit: list[AuditEntry] = field(default_factory=list)

    def set_aside(
        self, letter: DeadLetterRecord, *, actor: str, task_id: TaskId | None = None
    ) -> None:
        """Write a dead letter, and what the audit says of it."""
        self.dead_letters.append(letter)
        self.audit.append(
            AuditEntry(
                id=derived_id(f"{letter.stream}:dead", letter.entry_id),
                at=letter.created_at,
                action="message.dead_lettered",
                actor=actor,
                object_type="message",
                object_id=letter.entry_id,
                detail={
                    "stream": letter.stream,
                    "reason": letter.reason.value,
                    "task_id": task_id,
                },
            )
        )


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
        budget=_json(task.budget) if task.budget else None,
        traceparent=task.traceparent,
    )


def _json(budget: Budget) -> dict[str, Any]:
    found: dict[str, Any] = budget.model_dump(mode="json", exclude_none=True)
    return found


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
        before=_standing(before) if before else None,
        after=_standing(record.state, record.attempt),
        detail={"agent": record.agent, **detail} if detail else _of_agent(record.agent),
    )


# Most audit entries say one of few things. One object of each is cleaned and written as JSON once
# for a whole batch (`db.recording`); nobody changes it.


@lru_cache(maxsize=256)
def _standing(state: TaskState, attempt: int | None = None) -> dict[str, Any]:
    return {"state": state.value} | ({} if attempt is None else {"attempt": attempt})


@lru_cache(maxsize=256)
def _of_agent(agent: str) -> dict[str, Any]:
    return {"agent": agent}
