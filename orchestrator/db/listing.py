"""Reads for people: one thing in full, and lists by keyset, newest first. Never an OFFSET.

The API's routes and the command line call these. Rows in a list come without their large columns
(a task's input, a letter's fields, an alert's details): two hundred of those could be 50 MB.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Select,
    Text,
    bindparam,
    cast,
    func,
    literal,
    literal_column,
    or_,
    select,
    true,
    tuple_,
)
from sqlalchemy.orm import InstrumentedAttribute, aliased, defer

from orchestrator.db.alert_search import WALKED, end_of, ways, window_of
from orchestrator.db.columns import A_PERSON, AN_ACT
from orchestrator.db.models import (
    AlertRow,
    AttemptRow,
    AuditRow,
    DeadLetterRow,
    InvestigationAlertRow,
    InvestigationRow,
    ResultRow,
    TaskRow,
)
from orchestrator.db.session import Database

PERSON = "key:"  # begins an actor who came with an API key
RowT = TypeVar("RowT", TaskRow, AuditRow, DeadLetterRow, AlertRow, InvestigationRow)
After = tuple[datetime, str]  # the last row of the page before: its time and its id

# Alerts that one page looks at: a search for what is rare, or nowhere, costs 0.2 s a page (measured
# over a million) rather than the whole table.
LOOKED_AT = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[RowT]):
    """Some rows, and where the next page begins; None when there is none."""

    rows: list[RowT]
    next: After | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskDetail:
    """One task with how it ended, if it has, and the attempts that were worth a line."""

    task: TaskRow
    result: ResultRow | None
    attempts: list[AttemptRow]


async def task(database: Database, task_id: str) -> TaskDetail | None:
    """One task in full; None without a row. Raises Unavailable."""
    async with database.session() as session:
        row = await session.get(TaskRow, task_id)
        if row is None:
            return None
        result = await session.get(ResultRow, task_id)
        attempts = await session.scalars(
            select(AttemptRow).where(AttemptRow.task_id == task_id).order_by(AttemptRow.attempt)
        )
        return TaskDetail(task=row, result=result, attempts=list(attempts))


async def tasks(
    database: Database,
    *,
    agent: str | None = None,
    state: str | None = None,
    queue: str | None = None,
    tenant: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    after: After | None = None,
    limit: int = 50,
) -> Page[TaskRow]:
    """Tasks by birth, newest first, without input and metadata; `since` <= created < `until`."""
    wanted = _equal((TaskRow.agent, agent), (TaskRow.queue, queue), (TaskRow.tenant, tenant))
    if state is not None:
        # In the text rather than bound, so that the partial indexes are seen to fit.
        said = bindparam("state", state, type_=TaskRow.state.type, literal_execute=True)
        wanted.append(TaskRow.state == said)
    wanted += _between(TaskRow.created_at, since, until)
    asked = select(TaskRow).where(*wanted).options(defer(TaskRow.input), defer(TaskRow.meta))
    return await _page(
        database, asked, at=TaskRow.created_at, row_id=TaskRow.id, after=after, limit=limit
    )


async def audit(
    database: Database,
    *,
    object_type: str | None = None,
    object_id: str | None = None,
    action: str | None = None,
    actor: str | None = None,
    contains: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    after: After | None = None,
    limit: int = 50,
) -> Page[AuditRow]:
    """Who did what, newest first; `since` <= at < `until`.

    `action`: one, or all that begin alike ("schedule.*"). `contains`: a text, in whatever case,
    in the object's id or in what was said; it is searched for row by row, so give `since`.
    """
    wanted = _equal(
        (AuditRow.object_type, object_type),
        (AuditRow.object_id, object_id),
        (AuditRow.actor, actor),
    )
    wanted += _acts(action)
    if actor is not None and actor.startswith(PERSON):
        wanted.append(literal_column(A_PERSON, Boolean))
    if contains is not None:
        said = [cast(each, Text) for each in (AuditRow.before, AuditRow.after, AuditRow.detail)]
        pattern = func.concat_ws(" ", AuditRow.object_id, *said)
        wanted.append(pattern.icontains(contains, autoescape=True))
    wanted += _between(AuditRow.at, since, until)
    return await _page(
        database,
        select(AuditRow).where(*wanted),
        at=AuditRow.at,
        row_id=AuditRow.id,
        after=after,
        limit=limit,
    )


def _acts(action: str | None) -> Iterator[ColumnElement[bool]]:
    if action is None:
        return
    if action.endswith("*"):
        yield AuditRow.action.startswith(action[:-1], autoescape=True)
    else:
        yield AuditRow.action == action
    if not "task.".startswith(action.rstrip("*")[:5]):
        # The index of acts leaves out the changes of tasks' states, nearly all of the rows.
        yield literal_column(AN_ACT, Boolean)


async def dead_letter(database: Database, letter_id: str) -> DeadLetterRow | None:
    """One dead letter with the message's fields; None when there is none."""
    async with database.session() as session:
        return await session.get(DeadLetterRow, letter_id)


async def dead_letters(
    database: Database,
    *,
    is_open: bool | None = None,
    reason: str | None = None,
    agent: str | None = None,
    stream: str | None = None,
    cause: str | None = None,
    after: After | None = None,
    limit: int = 50,
) -> Page[DeadLetterRow]:
    """Messages that were set aside, newest first, without their fields; `cause` as of `causes`."""
    wanted = _equal(
        (DeadLetterRow.reason, reason),
        (DeadLetterRow.agent, agent),
        (DeadLetterRow.stream, stream),
        (DeadLetterRow.cause, cause),
    )
    if is_open is not None:
        closed = DeadLetterRow.closed_at
        wanted.append(closed.is_(None) if is_open else closed.is_not(None))
    asked = select(DeadLetterRow).where(*wanted).options(defer(DeadLetterRow.fields))
    return await _page(
        database,
        asked,
        at=DeadLetterRow.created_at,
        row_id=DeadLetterRow.id,
        after=after,
        limit=limit,
    )


async def alert(database: Database, alert_id: str) -> AlertRow | None:
    """One alert with its details; None when there is none."""
    async with database.session() as session:
        return await session.get(AlertRow, alert_id)


async def alerts(
    database: Database,
    *,
    kind: str | None = None,
    severity: str | None = None,
    min_severity: str | None = None,
    source: str | None = None,
    address: str | None = None,
    src_ip: str | None = None,
    dest_ip: str | None = None,
    signature: str | None = None,
    signature_id: int | None = None,
    acknowledged: bool | None = None,
    investigation_id: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    after: After | None = None,
    limit: int = 50,
) -> Page[AlertRow]:
    """Alerts by arrival, newest first, without details; `since` <= received < `until`.

    `address` is either end of the connection; `signature` is contained in the alert's, whatever
    the case; `min_severity` is that one or a higher one. A page looks at LOOKED_AT alerts at most
    and may so be short, or empty, with a next one.
    """
    given = {
        "investigation_id": investigation_id, "address": address, "src_ip": src_ip,
        "dest_ip": dest_ip, "severity": severity, "min_severity": min_severity,
        "acknowledged": acknowledged, "kind": kind, "source": source, "signature": signature,
        "signature_id": signature_id,
    }  # fmt: skip
    filters = {name: value for name, value in given.items() if value is not None}
    walked = next((name for name in filters if name in WALKED), None)
    if filters.get(walked or "") is True:  # acknowledged, of which there is no index
        walked = None
    walks = [] if walked is None else ways(AlertRow, walked, filters.pop(walked))
    within = [*_between(AlertRow.received_at, since, until)]
    if after is not None:
        within.append(_before(AlertRow.received_at, AlertRow.id, after))
    window = window_of(walks or [true()], within, LOOKED_AT if filters else limit + 1)
    row = aliased(AlertRow, window)
    asked = select(row).where(*(or_(*ways(row, *each)) for each in filters.items()))
    asked = asked.order_by(row.received_at.desc(), row.id.desc()).limit(limit + 1)
    async with database.session() as session:
        # One snapshot for both: an alert that arrives in between would move the window.
        await session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        rows = list(await session.scalars(asked.options(defer(row.details))))
        if len(rows) > limit:
            return Page(rows=rows[:limit], next=(rows[limit - 1].received_at, rows[limit - 1].id))
        return Page(rows=rows, next=await end_of(session, window, LOOKED_AT) if filters else None)


async def investigation(database: Database, investigation_id: str) -> InvestigationRow | None:
    """One investigation; None when there is none."""
    async with database.session() as session:
        return await session.get(InvestigationRow, investigation_id)


async def investigations(
    database: Database,
    *,
    rule: str | None = None,
    key: str | None = None,
    severity: str | None = None,
    alert_id: str | None = None,
    is_open: bool | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    after: After | None = None,
    limit: int = 50,
) -> Page[InvestigationRow]:
    """Investigations by their beginning, newest first; `since` <= opened < `until`."""
    wanted = _equal(
        (InvestigationRow.rule, rule),
        (InvestigationRow.key, key),
        (InvestigationRow.severity, severity),
    )
    if alert_id is not None:
        its = select(InvestigationAlertRow.investigation_id).where(
            InvestigationAlertRow.alert_id == alert_id
        )
        wanted.append(InvestigationRow.id.in_(its))
    if is_open is not None:
        # The row is closed by the next alert that comes, which may be long after its time.
        its_time = InvestigationRow.closed_at.is_(None) & (InvestigationRow.open_until > func.now())
        wanted.append(its_time if is_open else ~its_time)
    wanted += _between(InvestigationRow.opened_at, since, until)
    return await _page(
        database,
        select(InvestigationRow).where(*wanted),
        at=InvestigationRow.opened_at,
        row_id=InvestigationRow.id,
        after=after,
        limit=limit,
    )


async def members(
    database: Database, investigation_id: str, *, after: After | None = None, limit: int = 50
) -> Page[AlertRow]:
    """An investigation's alerts by arrival, newest first, without details."""
    its = select(InvestigationAlertRow.alert_id).where(
        InvestigationAlertRow.investigation_id == investigation_id
    )
    asked = select(AlertRow).where(AlertRow.id.in_(its)).options(defer(AlertRow.details))
    return await _page(
        database, asked, at=AlertRow.received_at, row_id=AlertRow.id, after=after, limit=limit
    )


async def _page(
    database: Database,
    asked: Select[RowT],
    *,
    at: InstrumentedAttribute[datetime],
    row_id: InstrumentedAttribute[str],
    after: After | None,
    limit: int,
) -> Page[RowT]:
    if after is not None:
        asked = asked.where(_before(at, row_id, after))
    # One more than asked for tells whether there is a next page.
    asked = asked.order_by(at.desc(), row_id.desc()).limit(limit + 1)
    async with database.session() as session:
        rows = list(await session.scalars(asked))
    shown = rows[:limit]
    if len(rows) <= limit:
        return Page(rows=shown, next=None)
    return Page(rows=shown, next=(getattr(shown[-1], at.key), shown[-1].id))


def _before(
    at: InstrumentedAttribute[datetime], row_id: InstrumentedAttribute[str], after: After
) -> ColumnElement[bool]:
    last = tuple_(literal(after[0], at.type), literal(after[1], row_id.type))
    return tuple_(at, row_id) < last


def _equal(
    *pairs: tuple[InstrumentedAttribute[Any], str | None],
) -> list[ColumnElement[bool]]:
    return [column == value for column, value in pairs if value is not None]


def _between(
    column: InstrumentedAttribute[datetime], since: datetime | None, until: datetime | None
) -> Iterator[ColumnElement[bool]]:
    if since is not None:
        yield column >= since
    if until is not None:
        yield column < until
