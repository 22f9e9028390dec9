"""What new alerts do to an investigation: a pure rule. `db.investigations` asks and writes it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from orchestrator.alert import Alert, Severity
from orchestrator.rule import Investigation, Rule, RuleFailed, Step
from orchestrator.task import Task, TaskId


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """An alert that a rule claims under a key."""

    alert: Alert
    received_at: datetime
    rule: Rule
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """An open investigation as its row says; without an alert it has only just been opened."""

    id: str
    rule: str
    key: str
    opened_at: datetime
    severity: Severity
    alerts: int
    first_alert_at: datetime
    last_alert_at: datetime
    task_ids: tuple[TaskId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """What becomes of an investigation with some alerts more."""

    after: Standing
    task: Task | None = None
    replaced: TaskId | None = None  # what need not run any more, if it still waits
    refused: tuple[tuple[Member, RuleFailed], ...] = ()  # these are no members


Make = Callable[[Member, Investigation, Step], Task]


def join(standing: Standing, members: Sequence[Member], make: Make) -> Joined:
    """Add alerts that are new to it. `make` gives a step's task, or raises RuleFailed.

    4,000 alerts of medium severity, then a critical one, then 6,000 more: two tasks. A member of
    which no task can be made is refused, and the next one stands in for it.
    """
    left = sorted(members, key=lambda each: -each.alert.severity.rank)
    told = Investigation(
        id=standing.id, rule=standing.rule, key=standing.key, opened_at=standing.opened_at
    )
    refused: list[tuple[Member, RuleFailed]] = []
    task = step = None
    while task is None and (step := due(standing, left)) is not None:
        try:
            task = make(left[0], told, step)
        except RuleFailed as error:
            refused.append((left.pop(0), error))
    escalated = task is not None and step is Step.CRITICAL and bool(standing.task_ids)
    return Joined(
        after=_with(standing, left, task),
        task=task,
        replaced=standing.task_ids[0] if escalated else None,
        refused=tuple(refused),
    )


def due(standing: Standing, left: Sequence[Member]) -> Step | None:
    """The step that these alerts, the most serious first, ask for; None for none."""
    if not left:
        return None
    if left[0].alert.severity is Severity.CRITICAL and standing.severity is not Severity.CRITICAL:
        return Step.CRITICAL
    return None if standing.task_ids else Step.FIRST


def _with(standing: Standing, members: Sequence[Member], task: Task | None) -> Standing:
    if not members:
        return standing
    times = [each.received_at for each in members]
    if standing.alerts:
        times += [standing.first_alert_at, standing.last_alert_at]
    severest = max(standing.severity, members[0].alert.severity, key=lambda each: each.rank)
    return replace(
        standing,
        severity=severest,
        alerts=standing.alerts + len(members),
        first_alert_at=min(times),
        last_alert_at=max(times),
        task_ids=standing.task_ids + ((task.task_id,) if task is not None else ()),
    )
