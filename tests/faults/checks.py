"""The checker: joins the ledger, the agents' notes and Postgres, and believes the ledger.

Words as in Jepsen's queue tests: lost, duplicated, recovered, unexpected.
"""

import json
import signal
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple

from orchestrator.task import TERMINAL, TaskId, TaskState
from tests.faults.agents import proof
from tests.faults.ledger import Asked, Start
from tests.faults.orders import Death
from tests.faults.points import Order
from tests.faults.poisons import IN_WORKER, POISONS

ENDS = frozenset(f"task.{state.value}" for state in TERMINAL)
POISON_NAMES = frozenset(each.name for each in POISONS)
IN_WORKER_NAMES = frozenset(each.name for each in IN_WORKER)
MADE_UP = 1_800.0  # seconds that times of one task never lie apart: a clock was set
SHOWN = 5  # examples of a finding


@dataclass(frozen=True)
class Result:
    """A row of `results`."""

    task_id: TaskId
    state: str
    attempt: int
    output: object
    worker: str | None
    finished_at: datetime | None
    recorded_at: datetime

    @property
    def digest(self) -> int:
        """The same in this process for the same row; a million rows would be too many to keep."""
        output = json.dumps(self.output, sort_keys=True)
        return hash((self.state, self.attempt, output, self.worker, self.finished_at))


@dataclass(frozen=True)
class Run:
    """What there is to judge by and is no task's."""

    asked: Collection[Asked]
    kills: Sequence[tuple[int, float]]
    orders: Sequence[Order]  # to die at a named point
    deaths: Mapping[int, Death]  # those who did, by the order's number
    ends: Mapping[int, int]  # exit codes by pid
    worker_deaths: int  # that nobody ordered
    forgot: Sequence[float] = ()  # when Redis lost what it knew, in part or whole


@dataclass(frozen=True)
class Evidence:
    """Everything there is to judge some tasks by."""

    asked: Mapping[TaskId, Asked]
    accepted: Mapping[TaskId, Asked]
    starts: Sequence[Start]
    states: Mapping[TaskId, tuple[str, int]]  # of tasks: state and attempt
    results: Mapping[TaskId, Result]
    first_seen: Mapping[TaskId, int]  # digests of results as they were when they were first seen
    audit: Mapping[
        TaskId, Counter[str]
    ]  # actions; a first `task.queued` or `task.scheduled` as "first"
    dead_letters: Counter[TaskId]
    strangers: frozenset[TaskId]  # nobody submitted them; the scenario answers for them


class Again(NamedTuple):
    """A task that began again after a kill of whoever ran it."""

    seconds: float
    attempt: int
    between: int  # deliveries that did not begin, as their worker was killed, too


@dataclass
class Findings:
    """What is wrong, by kind, with the tasks it is wrong with; and what is only told."""

    wrong: dict[str, list[str]] = field(default_factory=dict)
    asked: int = 0
    accepted: int = 0
    recovered: int = 0
    superseded: int = 0
    worker_deaths: int = 0
    again: list[Again] = field(default_factory=list)
    points: Counter[str] = field(default_factory=Counter)  # deaths at named points

    @property
    def good(self) -> bool:
        return not any(self.wrong.values())

    def add(self, other: "Findings") -> None:
        """What was found of other tasks."""
        for name, tasks in other.wrong.items():
            self.wrong[name] = [*self.wrong.get(name, []), *tasks]
        self.asked += other.asked
        self.accepted += other.accepted
        self.recovered += other.recovered
        self.superseded += other.superseded
        self.again = sorted([*self.again, *other.again])


def judge_run(run: Run) -> Findings:
    """What is no task's."""
    return Findings(
        wrong={
            "workers taken along": list(_too_many_deaths(run)),
            "not killed at its point": [
                f"{each.number}, {each.point}" for each in run.orders if not _obeyed(each, run)
            ],
        },
        points=Counter(each.point for each in run.orders if _obeyed(each, run)),
        worker_deaths=run.worker_deaths,
    )


def judge(found: Evidence, run: Run) -> Findings:
    """Every check of these tasks."""
    ends = {task_id: _ends(actions) for task_id, actions in found.audit.items()}
    findings = Findings(
        asked=len(found.asked),
        accepted=len(found.accepted),
        recovered=sum(attempt > 1 for _, attempt in found.states.values()),
        superseded=sum(each["attempt.superseded"] for each in found.audit.values()),
        again=began_again(found.starts, run.kills),
    )
    findings.wrong = {
        "lost": [
            task_id
            for task_id in found.accepted
            if task_id not in found.results or not _terminal(found.states.get(task_id))
        ],
        "duplicated": [task_id for task_id, count in ends.items() if count > 1],
        "overwritten": [
            task_id for task_id, seen in found.first_seen.items()
            if (now := found.results.get(task_id)) is None or now.digest != seen
        ],
        "fenced off and accepted": list(_stale(found, run.forgot)),
        "unexpected": list(_unexpected(found)),
        "audit incomplete": [
            task_id for task_id in found.accepted
            if task_id in found.results
            and (found.audit.get(task_id, Counter())["first"] != 1 or ends.get(task_id) != 1)
        ],
        "poison not set aside once": [
            task_id for task_id, letters in _poison_letters(found) if letters != 1
        ],
    }  # fmt: skip
    return findings


def _obeyed(order: Order, run: Run) -> bool:
    """Whether a process said that it is at this point, and then ended by SIGKILL."""
    death = run.deaths.get(order.number)
    return (
        death is not None
        and death.point == order.point
        and run.ends.get(death.pid) == -signal.SIGKILL
    )


def _terminal(standing: tuple[str, int] | None) -> bool:
    return standing is not None and TaskState(standing[0]).is_terminal


def _ends(actions: Counter[str]) -> int:
    return sum(count for action, count in actions.items() if action in ENDS)


def _stale(found: Evidence, forgot: Sequence[float]) -> Iterable[str]:
    """Ends of an attempt that ran on after a later one had begun: its worker owned nothing more.

    Redis alone knew that; where it forgot it since, both are owners again, and the first to end
    is the one result.
    """
    begun: dict[tuple[TaskId, int], float] = {}
    for start in found.starts:
        key = (start.task_id, start.attempt)
        begun[key] = min(begun.get(key, start.at), start.at)
    for result in found.results.values():
        later = begun.get((result.task_id, result.attempt + 1))
        if not later or not result.finished_at:
            continue
        forgotten = any(later < at < result.recorded_at.timestamp() for at in forgot)
        if 0 < result.finished_at.timestamp() - later < MADE_UP and not forgotten:
            yield result.task_id


def _unexpected(found: Evidence) -> Iterable[str]:
    for task_id in found.states:
        if task_id not in found.asked and task_id not in found.strangers:
            yield f"{task_id} was never submitted"
    for result in found.results.values():
        asked = found.asked.get(result.task_id)
        if asked is None:
            continue
        if asked.agent in POISON_NAMES:
            if result.state not in (TaskState.DEAD, TaskState.FAILED):
                yield f"{result.task_id} {asked.agent} {result.state}"
        elif result.state != TaskState.SUCCEEDED:
            yield f"{result.task_id} {asked.agent} {result.state}"
        elif result.output != {"n": asked.n, "proof": proof(asked.n)}:
            yield f"{result.task_id} {asked.agent} returned {result.output}"


def _poison_letters(found: Evidence) -> Iterable[tuple[TaskId, int]]:
    """Each poison that crashed: its dead letters. One that timed out has failed instead."""
    for task_id, asked in found.accepted.items():
        result = found.results.get(task_id)
        if asked.agent in POISON_NAMES and result and result.state == TaskState.DEAD:
            yield task_id, found.dead_letters[task_id]


def _too_many_deaths(run: Run) -> Iterable[str]:
    """Two workers may die for a poison; the third start is in a process of its own."""
    poisons = sum(each.agent in IN_WORKER_NAMES for each in run.asked)
    if poisons and run.worker_deaths > 2 * poisons:
        yield f"{run.worker_deaths} for {poisons} poisons"


def began_again(starts: Sequence[Start], kills: Sequence[tuple[int, float]]) -> list[Again]:
    """From each kill to the next start of each task that the killed had in hand, by seconds."""
    by_task: dict[TaskId, list[Start]] = defaultdict(list)
    for start in starts:
        by_task[start.task_id].append(start)
    killed = dict(kills)
    found = []
    for runs in by_task.values():
        runs.sort(key=lambda each: each.at)
        for before, after in pairwise(runs):
            if (at := killed.get(before.pid)) and before.at < at < after.at:
                between = max(0, after.attempt - before.attempt - 1)
                found.append(Again(after.at - at, after.attempt, between))
    return sorted(found)
