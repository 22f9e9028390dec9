"""Why a task is where it is, in a sentence, with what to type where somebody must do something."""

from dataclasses import dataclass
from datetime import datetime

from orchestrator.dashboard.text import ago, duration
from orchestrator.db.models import ResultRow, TaskRow
from orchestrator.task import TaskState

PATIENCE = 10.0  # seconds in a queue that need no explanation


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What is known beside the task's own row."""

    knows_agent: bool  # this process has the agent's class; its workers may have others
    queue_is_served: bool | None  # a worker holds work of this queue; None: Redis did not say


Said = tuple[str, str | None]  # (why, what to type or None)


def sentence(task: TaskRow, result: ResultRow | None, around: Surroundings, now: datetime) -> Said:
    """As in "Attempt 2 failed; the next begins in 48 s."; empty where there is nothing to say."""
    state = TaskState(task.state)
    if state.is_terminal:
        return _ended(task, result)
    if task.run_at is not None and task.run_at > now:
        when = f"begins {ago(task.run_at, now)}."
        if state is TaskState.RETRYING:
            return f"Attempt {task.attempt} failed; the next {when}", None
        return f"It is not due yet: it {when}", None
    if state in {TaskState.RUNNING, TaskState.WAITING}:
        return _runs(task, now)
    return _waits(task, around, now)


def _runs(task: TaskRow, now: datetime) -> Said:
    if task.cancel_requested_at is not None:
        return "Its end was asked for; its worker hears of it with its next heartbeat.", None
    if task.state == TaskState.WAITING:
        return f"It waits for something outside, on {task.worker}.", None
    span = duration(now - task.started_at) if task.started_at else "a moment"
    return f"It has been running for {span} on {task.worker}.", None


def _ended(task: TaskRow, result: ResultRow | None) -> Said:
    match TaskState(task.state):
        case TaskState.DEAD:
            return "Its message was set aside: it never validly ran.", "aurora dead list"
        case TaskState.EXPIRED:
            return "It was not begun before it expired.", None
        case TaskState.CANCELLED:
            return f"It was cancelled by {task.cancel_requested_by or 'somebody'}.", None
        case TaskState.FAILED:
            tried = result.attempt if result is not None else task.attempt
            return f"It failed; {_attempts(tried)} used up, or its agent gave up.", None
        case _:
            return "", None


def _waits(task: TaskRow, around: Surroundings, now: datetime) -> Said:
    due = max(task.created_at, task.run_at or task.created_at)
    if task.cancel_requested_at is not None:
        return "Its end was asked for and waits for Redis.", "aurora doctor"
    if task.published_at is None:
        return "It is accepted and waits in Postgres until Redis has room for it.", "aurora doctor"
    if not around.knows_agent:
        return (
            f"No agent named {task.agent} is loaded here; a worker that has it takes the task.",
            "aurora agents list",
        )
    if around.queue_is_served is False and (now - due).total_seconds() > PATIENCE:
        return (
            f"No worker holds work of queue {task.queue}. Start one:",
            f"AURORA_QUEUES={task.queue} aurora worker",
        )
    return f"It waits its turn in queue {task.queue}, since {ago(due, now)}.", None


def _attempts(count: int) -> str:
    return "its one attempt is" if count == 1 else f"its {count} attempts are"
