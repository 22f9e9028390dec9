"""One attempt in hand: how a delivery becomes one, or what ends it before it starts."""

import asyncio
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from orchestrator.errors import DeadReason, PayloadTooLarge, Rejected
from orchestrator.outcome import Crashed, Expired, Outcome, Postponed, SetAside, Superseded
from orchestrator.registry import AgentRegistry
from orchestrator.runtime.completion import Ending
from orchestrator.streams.batch import Refused, applied, decoded
from orchestrator.streams.consumer import Delivery
from orchestrator.streams.message import Message, decode_task, entry_time
from orchestrator.task import Task, TaskId, derived_id

READ_PAST = 4  # times the limit of a message
# Unfinished starts after which an entry runs in a process of its own. Not one: a deployment or a
# machine that fails leaves every task in hand with one, and each would cost an interpreter. One is
# enough where the worker was in the middle of this very task's code.
SUSPECT_AFTER = 2
# Times AURORA_MAX_STARTS: starts in all. Workers may die around an innocent task again and again (a
# deployment that crashes for minutes), but what takes its worker down from within a child must end
# some time, too.
MOST_STARTS = 10


@dataclass(slots=True, kw_only=True)
class Flight:
    """A task that this worker owns an entry of, from its reading to its ending."""

    delivery: Delivery
    task: Task
    digest: str
    attempt: int
    crashes: int
    suspect: bool
    started_at: datetime
    began: float = field(default_factory=time.monotonic)
    running: "asyncio.Task[None] | None" = None
    announced: bool = False
    dropped: str | None = None  # why nothing is to be said at its end

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from every other: stream and entry."""
        return self.delivery.stream, self.delivery.entry_id

    def ending(self, outcome: Outcome, *, ends_task: bool = True) -> Ending:
        """This attempt and what it came to, now."""
        return Ending(
            delivery=self.delivery,
            outcome=outcome,
            attempt=self.attempt,
            crashes=self.crashes,
            task=self.task,
            task_id=self.task.task_id,
            started_at=self.started_at,
            finished_at=datetime.now(UTC),
            ends_task=ends_task,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Boarding:
    """What this worker lets start."""

    registry: AgentRegistry
    max_payload: int  # bytes
    max_starts: int

    def of(
        self, deliveries: Sequence[Delivery], *, named: Collection[TaskId] = ()
    ) -> list[Flight | Ending]:
        """Of each a flight, or the ending of what may not start: unreadable, unknown, too late.

        `named`: tasks whose code other workers were in the middle of when they ended.
        """
        now = datetime.now(UTC)
        # Read some way past the limit, so that a message that is too large ends its task: a row
        # that stayed open would be published again for ever.
        messages = decoded(deliveries, limit=READ_PAST * self.max_payload)
        tasks = applied(decode_task, messages)
        digests = ["" if isinstance(task, Refused) else task.digest for task in tasks]
        return [
            _unreadable(delivery, message, task, now)
            if isinstance(task, Refused)
            else self._readable(delivery, task, digest, now, named)
            for delivery, message, task, digest in zip(
                deliveries, messages, tasks, digests, strict=True
            )
        ]

    def _readable(
        self, delivery: Delivery, task: Task, digest: str, now: datetime, named: Collection[TaskId]
    ) -> Flight | Ending:
        earlier = delivery.times - 1  # deliveries of this entry whose run did not end
        attempt, crashes = task.attempt + earlier, task.crashes + earlier
        outcome = self._before_start(delivery, task, crashes, now)
        if outcome is not None:
            return Ending(
                delivery=delivery, outcome=outcome, attempt=attempt, crashes=crashes, task=task,
                task_id=task.task_id, finished_at=now,
            )  # fmt: skip
        return Flight(
            delivery=delivery, task=task, digest=digest, attempt=attempt, crashes=crashes,
            suspect=is_suspect(
                crashes, max_starts=self.max_starts, named=task.task_id in named
            ),
            started_at=now,
        )  # fmt: skip

    def _before_start(
        self, delivery: Delivery, task: Task, crashes: int, now: datetime
    ) -> Outcome | None:
        try:
            size = sum(map(len, delivery.fields.values()))
            if size > self.max_payload:
                raise PayloadTooLarge(size, self.max_payload)
            self.registry.get(task.agent)
        except Rejected as error:
            return SetAside(error.reason, str(error))
        taken = entry_time(delivery.entry_id)
        return before_start(task, crashes=crashes, taken=taken, now=now, max_starts=self.max_starts)


def _unreadable(
    delivery: Delivery, message: Message | Refused, why: Refused, now: datetime
) -> Ending:
    if isinstance(message, Refused):
        task_id = derived_id(delivery.stream, delivery.entry_id)
    else:
        task_id = message.id
    return Ending(
        delivery=delivery, outcome=SetAside(why.reason, why.detail), task_id=task_id,
        finished_at=now, ends_task=False,
    )  # fmt: skip


class Question(NamedTuple):
    """What the marker of a task is asked: may an attempt of it begin, or end it."""

    task_id: TaskId
    digest: str
    attempt: int


def question_of(boarded: Flight | Ending) -> Question | None:
    """The question to ask first; None where no task is touched.

    Also of what ends without a start: an unknown agent under the id of a task that is under way is
    none of that task's.
    """
    match boarded:
        case Flight(task=task, digest=digest, attempt=attempt):
            return Question(task.task_id, digest, attempt)
        case Ending(task=None) | Ending(outcome=Postponed()):
            return None
        case Ending(task=Task() as task, attempt=attempt):
            return Question(task.task_id, task.digest, attempt)
        case _:
            raise AssertionError("unreachable")


def answered(boarded: Flight | Ending, answer: str) -> Flight | Ending:
    """The same where the answer is "run", otherwise what it comes to: the id is taken, or ended."""
    if answer == "run":
        return boarded
    conflict = answer == "conflict"
    outcome: Outcome = Superseded(answer)
    if conflict:
        assert boarded.task is not None  # noqa: S101 - nothing is asked without a task
        outcome = SetAside(
            DeadReason.TASK_ID_CONFLICT,
            f"task {boarded.task.task_id} is under way with another agent or input;"
            " a new task needs a new id",
        )
    if isinstance(boarded, Flight):
        return boarded.ending(outcome, ends_task=not conflict)
    return boarded._replace(outcome=outcome, ends_task=not conflict)


def before_start(
    task: Task, *, crashes: int, taken: datetime, now: datetime, max_starts: int
) -> Outcome | None:
    """What ends an attempt before it starts; None: start it.

    `taken`: when Redis took the entry. A message that was due by Redis' clock then is due, however
    late this machine's clock is: otherwise it would go back and forth.
    """
    if crashes >= MOST_STARTS * max_starts:
        return SetAside(
            DeadReason.CRASHED,
            f"{crashes} starts of it did not end ({MOST_STARTS} times"
            f" AURORA_MAX_STARTS={max_starts}); its workers died or fell silent, also while it ran"
            " in a process of its own",
        )
    if task.expires_at is not None and task.expires_at <= now:
        return Expired()
    if task.run_at is not None and task.run_at > max(now, taken):
        return Postponed()
    return None


def is_suspect(crashes: int, *, max_starts: int, named: bool) -> bool:
    """True when it is to run in a process of its own, so that only the guilty one is set aside.

    With the default, three starts: the third one. Two workers died with it in hand, and with
    whatever else they had in hand. The second one, where a worker died or hung in its code.
    """
    return crashes >= (1 if named else min(SUSPECT_AFTER, max_starts))


def after_crash(crashed: Crashed, *, crashes: int, max_starts: int) -> Crashed | SetAside:
    """What the death of an attempt's own process comes to, after `crashes` other starts.

    With the default, three starts: the first and the second death are followed by another start,
    the third is the last. After two dead workers the first death is the last.
    """
    if crashes + 1 < max_starts:
        return crashed
    fault = crashed.fault
    detail = f"{crashes + 1} starts of it did not end (AURORA_MAX_STARTS={max_starts})"
    evidence = f"; its output ends:\n{fault.traceback}" if fault.traceback else ""
    return SetAside(DeadReason.CRASHED, f"{detail}; the last: {fault.message}{evidence}")
