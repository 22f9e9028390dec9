"""What lists show beside their rows: how many there are of each kind, and a line of each content.

Counts end at a bound: nobody reads the difference between ten thousand and a million, and counting
the million would read the table.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Select, bindparam, func, literal, select, text, union_all
from sqlalchemy.orm import defer

from orchestrator.alert import Severity
from orchestrator.db.listing import After
from orchestrator.db.models import AlertRow, TaskRow
from orchestrator.db.session import Database
from orchestrator.task import TaskState

MOST_COUNTED = 10_000
# What people call what a thing is about; the first that an input has stands for it in a list.
_TELLING = (
    "title", "subject", "signature", "question", "query", "prompt", "text", "message", "name",
)  # fmt: skip
# Of an input that Postgres keeps elsewhere, being long, nothing is fetched for a list.
_LINES = text(
    "SELECT t.id::text AS id, CASE WHEN pg_column_size(t.input) < 2000 THEN left(coalesce("  # noqa: S608 - constants
    + ", ".join(f"t.input->>'{name}'" for name in _TELLING)
    + ", jsonb_strip_nulls(t.input)::text), 400) END AS input,"
    " r.error->>'type' AS error_type, left(r.error->>'message', 400) AS error_message"
    " FROM tasks AS t LEFT JOIN results AS r ON r.task_id = t.id AND r.error IS NOT NULL"
    " WHERE t.id = ANY(:ids)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What a task is about, in a line; and what was wrong with it, if anything."""

    input: str | None  # what it is about; None where it is long or not known yet
    error_type: str | None
    error_message: str | None


NO_LINE = Line(input=None, error_type=None, error_message=None)


async def lines(database: Database, task_ids: Collection[str]) -> Mapping[str, Line]:
    """Task id -> its line. Raises Unavailable."""
    if not task_ids:
        return {}
    async with database.transaction() as connection:
        found = await connection.execute(_LINES, {"ids": list(task_ids)})
        return {
            row.id: Line(
                input=row.input, error_type=row.error_type, error_message=row.error_message
            )
            for row in found
        }


async def tasks_by_state(
    database: Database,
    *,
    agent: str | None = None,
    queue: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    most: int = MOST_COUNTED,
) -> Mapping[TaskState, int]:
    """State -> tasks, each count ended at `most` + 1. Raises Unavailable, TookTooLong."""
    wanted = _wanted(agent=agent, queue=queue, since=since, until=until)
    others = [each for each in TaskState if each is not TaskState.SUCCEEDED]
    each_other = [_bounded(state.value, most, _in_state(state.value), *wanted) for state in others]
    # Most have succeeded, and no index has them by themselves. All tasks of a time, or of an agent,
    # can be counted in an index alone; the others are few.
    every = _bounded("", 2 * most, *wanted)
    async with database.transaction() as connection:
        counts = {
            said: int(n) for said, n in await connection.execute(union_all(*each_other, every))
        }
        found: dict[TaskState, int] = {state: counts[state.value] for state in others}
        rest = counts[""] - sum(found.values())
        # What was not counted to its end cannot be taken off.
        is_known = counts[""] <= 2 * most and max(found.values()) <= most
        if rest <= most and not is_known:
            succeeded = TaskState.SUCCEEDED.value
            asked = _bounded(succeeded, most, _in_state(succeeded), *wanted)
            rest = int((await connection.execute(asked)).one()[1])
        found[TaskState.SUCCEEDED] = min(max(0, rest), most + 1)
    return {state: found[state] for state in TaskState}


async def tasks_after(
    database: Database,
    place: After,
    *,
    state: str | None = None,
    agent: str | None = None,
    queue: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    most: int = 99,
) -> int:
    """How many tasks of a list were born after the row at `place`; ended at `most` + 1."""
    wanted = _wanted(agent=agent, queue=queue, since=since, until=until)
    if state is not None:
        wanted.append(_in_state(state))
    wanted += [TaskRow.created_at >= place[0], TaskRow.id != place[1]]
    bounded = select(TaskRow.id).where(*wanted).limit(most + 1).subquery()
    async with database.transaction() as connection:
        return int(await connection.scalar(select(func.count()).select_from(bounded)) or 0)


async def tasks_of(database: Database, task_ids: Collection[str]) -> list[TaskRow]:
    """These tasks, newest first, without input and metadata; unknown ids are left out."""
    if not task_ids:
        return []
    asked = select(TaskRow).where(TaskRow.id.in_(task_ids))
    asked = asked.options(defer(TaskRow.input), defer(TaskRow.meta))
    async with database.session() as session:
        return list(
            await session.scalars(asked.order_by(TaskRow.created_at.desc(), TaskRow.id.desc()))
        )


async def alerts_by_severity(
    database: Database,
    *,
    kind: str | None = None,
    acknowledged: bool | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    most: int = MOST_COUNTED,
) -> Mapping[Severity, int]:
    """Severity -> alerts, each count ended at `most` + 1. Raises Unavailable, TookTooLong."""
    wanted = [AlertRow.kind == kind] if kind is not None else []
    at = AlertRow.acknowledged_at
    if acknowledged is not None:
        wanted.append(at.is_not(None) if acknowledged else at.is_(None))
    if since is not None:
        wanted.append(AlertRow.received_at >= since)
    if until is not None:
        wanted.append(AlertRow.received_at < until)
    each = []
    for severity in Severity:
        some = select(AlertRow.id).where(AlertRow.severity == severity.value, *wanted)
        bounded = some.limit(most + 1).subquery()
        said = literal(severity.value).label("severity")
        each.append(select(said, func.count()).select_from(bounded))
    async with database.transaction() as connection:
        found = await connection.execute(union_all(*each))
        return {Severity(severity): int(count) for severity, count in found}


def _wanted(
    *, agent: str | None, queue: str | None, since: datetime | None, until: datetime | None
) -> list[ColumnElement[bool]]:
    equal = ((TaskRow.agent, agent), (TaskRow.queue, queue))
    wanted = [column == value for column, value in equal if value is not None]
    if since is not None:
        wanted.append(TaskRow.created_at >= since)
    if until is not None:
        wanted.append(TaskRow.created_at < until)
    return wanted


def _bounded(said: str, most: int, *wanted: ColumnElement[bool]) -> Select[str, int]:
    """(`said`, how many tasks there are), the count ended at `most` + 1."""
    some = select(TaskRow.id).where(*wanted).limit(most + 1).subquery()
    return select(literal(said).label("said"), func.count()).select_from(some)


def _in_state(state: str) -> ColumnElement[bool]:
    # In the text rather than bound, so that the partial indexes are seen to fit.
    said = bindparam(None, state, type_=TaskRow.state.type, literal_execute=True)
    return TaskRow.state == said
