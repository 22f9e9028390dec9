"""One attempt in hand: how a delivery becomes one, or what ends it before it starts."""

import asyncio
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from orchestrator.errors import DeadReason, PayloadTooLarge, Rejected
from orchestrator.outcome import Crashed, Expired, Outcome, Postponed, SetAside, Superseded
from orchestrator.registry import AgentRegistry
from orchestrator.runtime.completion import Ending
from orchestrator.streams.consumer import Delivery
from orchestrator.streams.message import decode, decode_task
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


def board(
    delivery: Delivery,
    registry: AgentRegistry,
    *,
    max_payload: int,
    max_starts: int,
    named: Collection[TaskId] = (),
) -> Flight | Ending:
    """A flight that may start, or the ending of what may not: unreadable, unknown, too late.

    `named`: tasks whose code other workers were in the middle of when they ended.
    """
    now = datetime.now(UTC)
    task_id: str | None = None
    earlier = delivery.times - 1  # deliveries of this entry whose run did not end
    task: Task | None = None
    outcome: Outcome | None
    try:
        # Read some way past the limit, so that a message that is too large ends its task: a row
        # that stayed open would be published again for ever.
        message = decode(
            delivery.fields,
            stream=delivery.stream,
            entry_id=delivery.entry_id,
            limit=READ_PAST * max_payload,
        )
        task_id = message.id
        task = decode_task(message)
        task_id = task.task_id
        size = sum(map(len, delivery.fields.values()))
        if size > max_payload:
            raise PayloadTooLarge(size, max_payload)
        registry.get(task.agent)
        outcome = before_start(
            task,
            crashes=task.crashes + earlier,
            taken=message.taken,
            now=now,
            max_starts=max_starts,
        )
    except Rejected as error:
        outcome = SetAside(error.reason, str(error))
    attempt = task.attempt + earlier if task else 1
    crashes = task.crashes + earlier if task else 0
    if task is not None and outcome is None:
        return Flight(
            delivery=delivery, task=task, digest=task.digest, attempt=attempt, crashes=crashes,
            suspect=is_suspect(crashes, max_starts=max_starts, named=task.task_id in named),
            started_at=now,
        )  # fmt: skip
    assert outcome is not None  # noqa: S101 - an unreadable entry was set aside above
    return Ending(
        delivery=delivery, outcome=outcome, attempt=attempt, crashes=crashes, task=task,
        task_id=task_id or derived_id(delivery.stream, delivery.entry_id), finished_at=now,
        ends_task=task is not None,
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
