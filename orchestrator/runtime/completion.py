"""Ends attempts in Redis, in groups: as soon as one is done, with whatever else is done by then.

Self-clocked: a group is what has gathered while the group before was on its way, so a lone task
waits for nobody and a thousand share their round trips. Nothing is forgotten while Redis is away.
"""

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from pydantic_core import to_json

from orchestrator.errors import DeadReason, Overloaded, Unavailable
from orchestrator.event import DeadLetter, EventKind
from orchestrator.outcome import (
    Completed,
    Crashed,
    Expired,
    Failed,
    Fault,
    HandedBack,
    Outcome,
    Postponed,
    Retrying,
    SetAside,
    Superseded,
)
from orchestrator.streams.connection import Streams
from orchestrator.streams.consumer import BACKOFF, Delivery
from orchestrator.streams.message import dump, raw_fields
from orchestrator.streams.names import TASKS
from orchestrator.task import Task, iso, new_id

logger = logging.getLogger("aurora.completion")

# A script call: a hundred attempts are about a millisecond of the server's time. With so many
# results of 8 MB one took longer than anybody waits for its answer, and all others with it.
GROUP = 100
GROUP_BYTES = 1024 * 1024  # of output


class Ending(NamedTuple):
    """One attempt and what it came to. `task` is None where the entry could not be read."""

    delivery: Delivery
    outcome: Outcome
    task_id: str
    finished_at: datetime
    attempt: int = 1
    crashes: int = 0
    task: Task | None = None
    started_at: datetime | None = None
    ends_task: bool = True  # False: only this entry is set aside, the task goes on


class Completion:
    """Takes endings, gives each to finish.lua, and says what came of it."""

    def __init__(
        self,
        streams: Streams,
        *,
        group: str,
        consumer: str,
        marker_ttl: timedelta,
        on_finished: Callable[[Ending, str], None],
    ) -> None:
        """Store. `on_finished` hears each ending's answer: "ok", "stale" or "ended"."""
        self._streams = streams
        self._group = group
        self._consumer = consumer
        self._ttl = int(marker_ttl.total_seconds() * 1000)
        self._on_finished = on_finished
        self._waiting: deque[Ending] = deque()
        self._news = asyncio.Event()
        self._telling = False
        self._stopping = False

    @property
    def busy(self) -> bool:
        """True while endings wait, or are on their way."""
        return self._telling or bool(self._waiting)

    def add(self, ending: Ending) -> None:
        """Take an ending; it is on its way before this loop's next turn."""
        self._waiting.append(ending)
        self._news.set()

    def stop(self) -> None:
        """End `run` once everything has been told."""
        self._stopping = True
        self._news.set()

    async def run(self) -> None:
        """Tell Redis of endings until stopped and nothing waits."""
        while self._waiting or not self._stopping:
            if not self._waiting:
                self._news.clear()
                await self._news.wait()
                continue
            group = self._next_group()
            self._telling = True
            answers = await self._tell(group)
            self._telling = False
            for ending, answer in zip(group, answers, strict=True):
                self._on_finished(ending, answer)

    def _next_group(self) -> list[Ending]:
        group = [self._waiting.popleft()]
        size = _output_bytes(group[0])
        while self._waiting and len(group) < GROUP:
            size += _output_bytes(self._waiting[0])
            if size > GROUP_BYTES:
                break
            group.append(self._waiting.popleft())
        return group

    async def _tell(self, group: Sequence[Ending]) -> list[str]:
        for failures in itertools.count():
            try:
                return await self._finish(group)
            except (Unavailable, Overloaded) as error:
                # The script may have run: told again, what is done answers "stale" or "ended".
                logger.warning(
                    "%d endings wait: %s", len(group), error, extra={"event": "completion.waits"}
                )
                await asyncio.sleep(BACKOFF[min(failures, len(BACKOFF) - 1)])
        raise AssertionError("unreachable")

    async def _finish(self, group: Sequence[Ending]) -> list[str]:
        keys = self._streams.keys
        now = iso(datetime.now(UTC))
        per_attempt: list[str | bytes | int] = []
        where: list[str] = []
        for ending in group:
            per_attempt += self._safe_arguments(ending)
            where += [ending.delivery.stream, keys.marker(ending.task_id)]
        reply = await self._streams.run(
            "finish",
            [keys.results, keys.delayed, keys.delayed_bodies, *where],
            [
                self._group, self._consumer, self._ttl, self._consumer, now,
                len(TASKS.groups), *TASKS.groups, *per_attempt,
            ],
        )  # fmt: skip
        return [answer.decode() for answer in reply]

    def _safe_arguments(self, ending: Ending) -> list[str | bytes | int]:
        """What cannot be written down must not keep its group from being told."""
        try:
            return self._arguments(ending)
        except Exception as error:
            logger.exception("task %s: its ending cannot be written", ending.task_id)
            fault = Fault(type=type(error).__name__, message="its ending could not be written")
            return self._arguments(ending._replace(outcome=Failed(fault)))

    def _arguments(self, ending: Ending) -> list[str | bytes | int]:
        delivery, outcome = ending.delivery, ending.outcome
        kind, event, due, body, state = "drop", b"", 0, b"", ""
        match outcome:
            case Completed() | Failed() | SetAside() | Expired():
                kind = "end" if ending.ends_task else "reject"
                event, state = self._event(ending), _KINDS[type(outcome)].value
            case Retrying() | Crashed():
                kind, state = "retry", EventKind.RETRYING.value
                run_at = ending.finished_at + outcome.delay
                event = self._event(ending, run_at=run_at)
                due = outcome.delay // timedelta(milliseconds=1)
                body = _next_message(ending)
            case Postponed():
                kind = "postpone"
                assert ending.task is not None  # noqa: S101 - only a task can be postponed
                assert ending.task.run_at is not None  # noqa: S101
                due = int(ending.task.run_at.timestamp() * 1000)
                body = _message(delivery.stream, ending.task)
            case Superseded() | HandedBack():
                kind = "drop"
        return [
            delivery.entry_id, delivery.times, kind, ending.attempt, ending.task_id, event, due,
            body, state, new_id() if event else "",
        ]  # fmt: skip

    def _event(self, ending: Ending, *, run_at: datetime | None = None) -> bytes:
        """A TaskEvent, without the cost of making one: every field here is one of ours."""
        outcome = ending.outcome
        if isinstance(outcome, Completed):
            return self._succeeded(ending, outcome)
        said = {
            "task_id": ending.task_id,
            "agent": ending.task.agent if ending.task else "",
            "event": _KINDS[type(outcome)].value,
            "at": ending.finished_at,
            "attempt": ending.attempt,
            "crashes": ending.crashes or None,
            "crashed": _crashed(ending) or None,
            "error": _error(outcome),
            "worker": self._consumer,
            "started_at": ending.started_at,
            "finished_at": ending.finished_at,
            "run_at": run_at,
            "dead_letter": _dead_letter(ending),
        }
        return to_json({name: value for name, value in said.items() if value is not None})

    def _succeeded(self, ending: Ending, outcome: Completed) -> bytes:
        """The end of nearly every task, without what it never says: a third faster."""
        said: dict[str, object] = {
            "task_id": ending.task_id,
            "agent": ending.task.agent if ending.task else "",
            "event": EventKind.SUCCEEDED.value,
            "at": ending.finished_at,
            "attempt": ending.attempt,
            "worker": self._consumer,
            "started_at": ending.started_at,
            "finished_at": ending.finished_at,
        }
        if ending.crashes:
            said["crashes"] = ending.crashes
        # The output is JSON already; parsing it to write it again would double the cost.
        return b'%b,"output":%b}' % (to_json(said)[:-1], outcome.output)


_KINDS: dict[type, EventKind] = {
    Completed: EventKind.SUCCEEDED,
    Retrying: EventKind.RETRYING,
    Crashed: EventKind.RETRYING,
    Failed: EventKind.FAILED,
    SetAside: EventKind.DEAD,
    Expired: EventKind.EXPIRED,
}


def _error(outcome: Outcome) -> dict[str, object] | None:
    match outcome:
        case Retrying(fault=fault) | Crashed(fault=fault) | Failed(fault=fault):
            return fault.as_json()
        case SetAside(reason=reason, detail=detail):
            return {"type": reason.value, "message": detail}
        case Expired():
            return {"type": "expired", "message": "its time had passed before it began"}
        case _:
            return None


def _crashed(ending: Ending) -> bool:
    """True where this very attempt crashed; what is set aside before its start did so earlier."""
    match ending.outcome:
        case Crashed():
            return True
        case SetAside(reason=DeadReason.CRASHED):
            return ending.started_at is not None
        case _:
            return False


def _dead_letter(ending: Ending) -> DeadLetter | None:
    if not isinstance(ending.outcome, SetAside):
        return None
    return DeadLetter(
        stream=ending.delivery.stream,
        entry_id=ending.delivery.entry_id,
        reason=ending.outcome.reason,
        detail=ending.outcome.detail,
        fields=raw_fields(ending.delivery.fields),
        ends_task=ending.ends_task,
    )


def _output_bytes(ending: Ending) -> int:
    return len(ending.outcome.output) if isinstance(ending.outcome, Completed) else 0


def _next_message(ending: Ending) -> bytes:
    assert ending.task is not None  # noqa: S101 - an unreadable entry is not retried
    crashes = ending.crashes + _crashed(ending)
    following = ending.task.model_copy(
        update={"attempt": ending.attempt + 1, "crashes": crashes, "run_at": None}
    )
    return _message(ending.delivery.stream, following)


def _message(stream: str, task: Task) -> bytes:
    said = {
        "stream": stream,
        "id": task.task_id,
        "data": dump(task).decode(),
        "producer": "delayed",
    }
    if task.traceparent is not None:
        said["traceparent"] = task.traceparent
    return to_json(said)
