"""A task's time as bars: how long it waited, how long each attempt took."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from orchestrator.db.models import AttemptRow, TaskRow

WIDTH = 1000.0  # of the drawing, whatever its size on the page
THINNEST = 4.0  # so that a short one is seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One stretch of time."""

    label: str
    state: str  # of an attempt, or "waited"
    span: timedelta
    left: float  # of WIDTH
    width: float


def bars(task: TaskRow, attempts: Sequence[AttemptRow], now: datetime) -> list[Bar]:
    """From its birth to its end, or to now; nothing for a task that has not begun."""
    due = max(task.created_at, task.run_at or task.created_at)
    tries = [
        (f"Attempt {each.attempt}", each.state, each.started_at, each.finished_at or now)
        for each in attempts
        if each.started_at is not None
    ]
    if not tries and task.started_at is not None:
        ended = task.finished_at or now
        tries = [(f"Attempt {task.attempt}", task.state, task.started_at, ended)]
    if not tries:
        return []
    # With retries `run_at` is the last attempt's; the first wait begins with the task.
    first = tries[0][2]
    born = due if due <= first else task.created_at
    stretches = [("Waited", "waited", born, first), *tries]
    begin = min(each[2] for each in stretches)
    whole = max((each[3] - begin).total_seconds() for each in stretches) or 1.0
    return [
        _bar(label, state, since - begin, until - since, whole)
        for label, state, since, until in stretches
    ]


def _bar(label: str, state: str, after: timedelta, span: timedelta, whole: float) -> Bar:
    width = max(THINNEST, WIDTH * span.total_seconds() / whole)
    left = min(WIDTH * after.total_seconds() / whole, WIDTH - width)
    return Bar(
        label=label, state=state, span=span, left=round(max(0.0, left), 1), width=round(width, 1)
    )
