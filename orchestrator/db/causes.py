"""Dead letters by what they died of: a thousand messages with one mistake are one line.

A cause is a reason and what was said of it, without what differs from message to message: ids and
numbers. Its name is a digest of the two (`models.CAUSE`), good in an address.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, func, select

from orchestrator.db.models import DeadLetterRow
from orchestrator.db.session import Database

SHOWN = 100  # causes of one page; with more, the newest letters have the word
LOOKED_AT = 20_000  # open letters, the newest: a page's wait, and more than anybody counts
SAID = 300  # characters of a detail that are shown
AGENTS = 5  # named beside a cause


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Open letters that have one reason and say the same."""

    id: str
    reason: str
    detail: str  # of one of them, its beginning
    letters: int
    first_at: datetime
    last_at: datetime
    agents: tuple[str, ...]  # a few


@dataclass(frozen=True, slots=True, kw_only=True)
class Causes:
    """Those with the most letters first, and whether some letters were too old to be looked at."""

    found: tuple[Cause, ...]
    is_partial: bool


async def causes(
    database: Database,
    *,
    reason: str | None = None,
    agent: str | None = None,
    cause: str | None = None,
) -> Causes:
    """What open letters died of. Raises Unavailable, TookTooLong."""
    wanted: list[ColumnElement[bool]] = [DeadLetterRow.closed_at.is_(None)]
    if reason is not None:
        wanted.append(DeadLetterRow.reason == reason)
    if agent is not None:
        wanted.append(DeadLetterRow.agent == agent)
    if cause is not None:
        wanted.append(DeadLetterRow.cause == cause)
    newest = select(
        DeadLetterRow.cause, DeadLetterRow.reason, DeadLetterRow.agent,
        func.left(DeadLetterRow.detail, SAID).label("detail"), DeadLetterRow.created_at,
    ).where(*wanted)  # fmt: skip
    newest = newest.order_by(DeadLetterRow.created_at.desc(), DeadLetterRow.id.desc())
    row = newest.limit(LOOKED_AT).subquery().c
    letters = func.count()
    asked = (
        select(
            row.cause,
            row.reason,
            func.min(row.detail).label("detail"),
            letters.label("letters"),
            func.min(row.created_at).label("first_at"),
            func.max(row.created_at).label("last_at"),
            func.array_agg(func.distinct(row.agent)).label("agents"),
            func.sum(letters).over().label("all_letters"),
        )
        .group_by(row.cause, row.reason)
        .order_by(letters.desc(), func.max(row.created_at).desc())
        .limit(SHOWN)
    )  # fmt: skip
    async with database.transaction() as connection:
        rows = list(await connection.execute(asked))
    return Causes(
        found=tuple(_cause(each) for each in rows),
        is_partial=bool(rows) and (rows[0].all_letters >= LOOKED_AT or len(rows) == SHOWN),
    )


async def letters_of(database: Database, cause: str, *, until: datetime, limit: int) -> list[str]:
    """The ids of a cause's open letters not later than `until`, in the order of their coming."""
    asked = (
        select(DeadLetterRow.id)
        .where(DeadLetterRow.closed_at.is_(None), DeadLetterRow.created_at <= until)
        .where(DeadLetterRow.cause == cause)
        .order_by(DeadLetterRow.created_at, DeadLetterRow.id)
        .limit(limit)
    )
    async with database.session() as session:
        return list(await session.scalars(asked))


def _cause(row: Row[Any]) -> Cause:
    named = sorted(each for each in row.agents if each is not None)
    return Cause(
        id=row.cause, reason=row.reason, detail=row.detail, letters=row.letters,
        first_at=row.first_at, last_at=row.last_at, agents=tuple(named[:AGENTS]),
    )  # fmt: skip
