"""What must hold at the end of a simulation, whatever broke."""

from collections.abc import Iterator

from orchestrator.cron import TickOutcome
from orchestrator.streams.names import ORCHESTRATOR, RECORDER
from orchestrator.task import TERMINAL, TaskId, TaskState
from tests.simulation.load import FAILURES
from tests.simulation.postgres_model import count_audit
from tests.simulation.world import World

ENDS = frozenset(f"task.{state.value}" for state in TERMINAL)


def judge(world: World, *, quiet: bool) -> list[str]:
    """Everything that is wrong. `quiet`: nothing was broken, so nothing may have begun again."""
    wrong = list(world.wrong)
    for task_id in world.ledger.accepted:
        wrong += [f"task {world.number(task_id)}: {each}" for each in _task(world, task_id)]
    if quiet:
        wrong += list(_needless(world))
    wrong += list(_ticks(world))
    wrong += list(left_over(world))
    return wrong


def _task(world: World, task_id: TaskId) -> Iterator[str]:
    rows = world.postgres.rows
    row, result = rows.tasks.get(task_id), rows.results.get(task_id)
    if row is None or not row.state.is_terminal or result is None:
        yield f"lost: {row.state if row else 'no row'}"
        return
    audit = count_audit(rows, task_id)
    if (ends := sum(audit[each] for each in ENDS)) != 1:
        yield f"{ends} ends in the audit"
    if audit["first"] != 1:
        yield f"{audit['first']} first lines in the audit"
    if result.state != row.state or result.attempt != row.attempt:
        yield f"its row says {row.state}/{row.attempt}, its result {result.state}/{result.attempt}"
    yield from _outcome(world, task_id)


def _outcome(world: World, task_id: TaskId) -> Iterator[str]:
    task, result = world.ledger.asked[task_id], world.postgres.rows.results[task_id]
    if task_id in world.ledger.cancelled and result.state is TaskState.CANCELLED:
        return
    if task.expires_at is not None and result.state is TaskState.EXPIRED:
        return
    if task.agent == "poison":
        if result.state is not TaskState.DEAD:
            yield f"a poison {result.state}"
            return
        letters = [e for e in world.postgres.rows.dead_letters.values() if e.task_id == task_id]
        if len(letters) != 1:
            yield f"{len(letters)} dead letters"
    elif task.input.get("failures", 0) >= FAILURES and result.state is TaskState.FAILED:
        return
    elif result.state is not TaskState.SUCCEEDED:
        yield f"{result.state}: {result.error}"
    elif result.output != {"n": task.input["n"], "attempt": result.attempt}:
        yield f"returned {result.output} as attempt {result.attempt}"


def _needless(world: World) -> Iterator[str]:
    """Starts that nothing called for. A poison's neighbours have lost their worker."""
    if any(task.agent == "poison" for task in world.ledger.asked.values()):
        return
    for task_id, task in world.ledger.asked.items():
        if task.expires_at or task_id in world.ledger.cancelled:
            continue
        starts = sum(each.task_id == task_id for each in world.notes.starts)
        called_for = min(FAILURES, task.input["failures"] + 1)
        if starts != called_for:
            yield f"task {world.number(task_id)} started {starts} times, not {called_for}"


def _ticks(world: World) -> Iterator[str]:
    """P7: each tick that was due is decided once, and each that fired has its one task."""
    rows = world.postgres.rows
    for schedule in rows.schedules.values():
        line = schedule.crontab
        expected = set(line.ticks_between(schedule.created_at, schedule.decided_until))
        decided = {fire_at for each, fire_at in rows.ticks if each == schedule.id}
        if expected != decided:
            yield (
                f"schedule {schedule.name}: {len(expected - decided)} ticks undecided,"
                f" {len(decided - expected)} that were never due"
            )
        fired = {
            tick.task_id for tick in rows.ticks.values()
            if tick.schedule_id == schedule.id and tick.outcome is TickOutcome.FIRED
        }  # fmt: skip
        tasks = {
            row.id for row in rows.tasks.values()
            if (row.metadata or {}).get("schedule_id") == schedule.id
        }  # fmt: skip
        if fired != tasks:
            yield f"schedule {schedule.name}: {len(fired)} ticks fired {len(tasks)} tasks"
        for task_id in tasks:
            actions = count_audit(rows, task_id)
            if (ends := sum(actions[each] for each in ENDS)) != 1:
                yield f"schedule {schedule.name}: {ends} ends of one task"


def left_over(world: World) -> Iterator[str]:
    """Nothing may be in anybody's hand any more."""
    for name, key in world.streams():
        for group, state in sorted(key.groups.items()):
            unread = sum(entry > state.last for entry in key.entries)
            if group.decode() in (ORCHESTRATOR, RECORDER) and (state.pending or unread):
                left = f"{len(state.pending)} pending and {unread} unread"
                yield f"{name}: {left} by {group.decode()}"
