"""What a batch of messages does to the record: a pure rule, whatever order they come in.

The recorder reads from several streams at once, sees everything at least once, and may hear of a
task's end before it has seen the task. So each task is folded over what is known of it: a report
counts only if it is later than what stands (`task.progress`), and the first end stays.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from orchestrator.errors import DeadReason
from orchestrator.event import DeadLetter, EventKind, TaskEvent
from orchestrator.record import (
    AttemptRecord,
    AuditEntry,
    DeadLetterRecord,
    HeardEvent,
    ModelCallRecord,
    ResultRecord,
    SeenTask,
    TaskRecord,
    Writes,
    accepted,
    state_changed,
)
from orchestrator.task import TaskId, TaskState, derived_id, new_id, progress
from orchestrator.usage import ModelCall


def fold(known: Mapping[TaskId, TaskRecord], messages: Iterable[SeenTask | HeardEvent]) -> Writes:
    """What `messages` do to the record of which `known` are the rows that exist.

    The rows are handed over: those that change are changed.
    """
    folding = _Fold(known)
    for message in messages:
        if isinstance(message, SeenTask):
            folding.see(message)
        else:
            folding.hear(message)
    return folding.writes


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
        if letter is not None and not letter.ends_task:
            self._dead_letter(letter, event, heard.said_by)
            return
        if heard.call is not None:
            self._spend(heard, heard.call)
            return
        record = self._record(event.task_id) or self._unseen(heard)
        if record.state.is_terminal:
            # Nor does it leave a letter: redriven, what has ended would run again.
            self._superseded(record, heard)
            return
        if letter is not None:
            self._dead_letter(letter, event, heard.said_by)
        before, state = record.state, event.event.state
        reached = progress(state, event.attempt)
        self._crashed_before(record, event)
        self._attempt(record, event, before)
        if event.crashed:
            # Before the check below: the message of the next attempt may have been read first.
            audit_id = derived_id(f"{heard.stream}:crashed", heard.entry_id)
            self._say_crashed(record, event, event.attempt, audit_id)
        if reached <= record.progress and not state.is_terminal:
            return
        record.state, record.progress = state, reached
        record.attempt = event.attempt
        record.crashes = max(record.crashes, event.crashes + event.crashed)
        record.worker = event.worker or record.worker
        record.started_at = event.started_at or record.started_at
        record.run_at = _due(heard) if state is TaskState.RETRYING else record.run_at
        if state.is_terminal:
            record.finished_at = event.finished_at or event.at
            self.writes.results[record.id] = _result(record, event)
            self._may_have_spent(record)
        self._changed(record, before, event.at, event.worker or heard.said_by)

    def _spend(self, heard: HeardEvent, call: ModelCall) -> None:
        """A model was called: that is money, whatever has become of the task and the attempt.

        Of a task that we have not read yet there is a row all the same, so that whoever records its
        end waits for us, or we for him (db.spending).
        """
        event = heard.event
        if event.task_id not in self.writes.tasks and event.task_id not in self.known:
            self._unseen(heard)
        self.writes.spenders.add(event.task_id)
        self.writes.calls[_call(event, call)] = None

    def _may_have_spent(self, record: TaskRecord) -> None:
        if record.id in self.known:
            self.writes.spenders.add(record.id)

    def _record(self, task_id: TaskId) -> TaskRecord | None:
        found = self.writes.tasks.get(task_id)
        if found is None and (standing := self.known.get(task_id)) is not None:
            found = self.writes.tasks[task_id] = standing
        return found

    def _unseen(self, heard: HeardEvent) -> TaskRecord:
        """A task whose message we have not read yet: the row begins with what the event says.

        No later than it was said: a row of a time to come would be looked at when it has come.
        """
        event = heard.event
        record = TaskRecord(
            id=event.task_id,
            agent=event.agent,
            state=TaskState.QUEUED,
            progress=0,
            created_at=min(event.started_at or event.at, heard.at),
        )
        self.writes.tasks[record.id] = record
        return record

    def _complete(self, record: TaskRecord, fresh: TaskRecord) -> None:
        """The message of a task that is known from its events alone: what it asked for."""
        for name in (
            "digest", "queue", "priority", "tenant", "input", "metadata", "idempotency_key",
            "parent_id", "root_id", "expires_at", "budget", "created_at", "published_at", "stream",
            "entry_id", "traceparent",
        ):  # fmt: skip
            setattr(record, name, getattr(fresh, name))
        if fresh.progress > record.progress:  # of its events only calls of models were read
            record.state, record.progress = fresh.state, fresh.progress
            record.attempt, record.crashes = fresh.attempt, fresh.crashes
            record.run_at = fresh.run_at
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
        record.traceparent = record.traceparent or fresh.traceparent
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
        row = DeadLetterRecord(
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
        self.writes.set_aside(row, actor=event.worker or said_by, task_id=event.task_id)

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
        self._may_have_spent(record)
        self._say_crashed(record, event, event.attempt - 1, new_id())
        record.crashes = event.crashes

    def _say_crashed(
        self, record: TaskRecord, event: TaskEvent, attempt: int, audit_id: str
    ) -> None:
        self.writes.audit.append(
            AuditEntry(
                id=audit_id, at=event.at, action="attempt.crashed",
                actor=event.worker or "worker", object_type="task", object_id=record.id,
                detail={"attempt": attempt, "agent": record.agent},
            )
        )  # fmt: skip

    def _attempt(self, record: TaskRecord, event: TaskEvent, before: TaskState) -> None:
        """A line for attempts worth one: a task that just succeeds at once needs none."""
        kind = event.event
        plain = kind in (EventKind.SUCCEEDED, EventKind.CANCELLED, EventKind.EXPIRED)
        if kind is EventKind.PROGRESS or (
            plain and event.attempt == 1 and before is not TaskState.RUNNING
        ):
            return
        state = "running" if kind is EventKind.STARTED else kind.value
        self.writes.attempts[record.id, event.attempt] = AttemptRecord(
            task_id=record.id,
            attempt=event.attempt,
            state="crashed" if event.crashed else state,
            error=event.error,
            worker=event.worker,
            started_at=event.started_at or record.started_at,
            finished_at=event.finished_at,
        )
        self._may_have_spent(record)

    def _superseded(self, record: TaskRecord, heard: HeardEvent) -> None:
        event = heard.event
        if not event.event.state.is_terminal:
            return  # a straggler's "started": no news
        told = (event.event.state, event.attempt, event.worker, event.finished_at or event.at)
        if told == (record.state, record.attempt, record.worker, record.finished_at):
            return  # the very end that stands, read again
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


def _due(heard: HeardEvent) -> datetime | None:
    """When a retry is due, by Redis' clock as it is published: a worker's may be minutes ahead."""
    event = heard.event
    if event.run_at is None:
        return None
    try:
        return heard.at + (event.run_at - event.at)
    except OverflowError:
        return event.run_at


def _result(record: TaskRecord, event: TaskEvent) -> ResultRecord:
    return ResultRecord(
        task_id=record.id,
        agent=record.agent,
        state=record.state,
        attempt=event.attempt,
        output=event.output,
        error=event.error,
        worker=event.worker,
        started_at=event.started_at or record.started_at,
        finished_at=event.finished_at or event.at,
    )


def _call(event: TaskEvent, call: ModelCall) -> ModelCallRecord:
    return ModelCallRecord(
        id=call.id,
        task_id=event.task_id,
        agent=event.agent,
        attempt=event.attempt,
        model=call.model,
        at=call.at,
        seconds=call.seconds,
        input_tokens=call.input_tokens,
        output_tokens=call.output_tokens,
        cached_tokens=call.cached_tokens,
        tool_calls=call.tool_calls,
        cost_usd=call.cost_usd,
        worker=event.worker,
    )
