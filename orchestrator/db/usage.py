"""What was spent on models: sums of the ledger by agent, model and day, and the calls of a task.

Days are UTC's. Whatever it is grouped by, the groups add up to the total, which counts those left
out of a long answer, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import select, text

from orchestrator.db.models import ModelCallRow
from orchestrator.db.session import Database
from orchestrator.usage import Usage

MOST_GROUPS = 1_000  # of one answer; a month of thirty pairs of agent and model
MOST_CALLS = 200  # of a task's, the first ones
# Pairs of agent and model that /metrics names, the first that came; the others are one. Each is a
# series for ever, and a message may bring any name.
MOST_PAIRS = 200
OTHER = "other"

_SUMMED = tuple(Usage.model_fields)
_SUMS = (
    "count(*) AS requests, sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens,"
    " sum(cached_tokens) AS cached_tokens, sum(tool_calls) AS tool_calls,"
    " sum(cost_usd) AS cost_usd, count(*) FILTER (WHERE cost_usd IS NULL) AS unpriced_requests"
)


class By(StrEnum):
    """What usage is grouped by."""

    AGENT = "agent"
    MODEL = "model"
    DAY = "day"


_GROUPS = {By.AGENT: "agent", By.MODEL: "model", By.DAY: "(at AT TIME ZONE 'UTC')::date"}
_FILTERS = {
    "since": "at >= :since", "until": "at < :until", "agent": "agent = :agent",
    "model": "model = :model",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """What was spent under one agent, model and day; None of what it is not grouped by."""

    usage: Usage
    agent: str | None = None
    model: str | None = None
    day: date | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """The largest groups, the newest day first; `total` is of all of them."""

    groups: list[Group]
    total: Usage
    left_out: int = 0  # groups


async def spending(
    database: Database,
    *,
    by: Sequence[By] = (),
    since: datetime | None = None,
    until: datetime | None = None,
    agent: str | None = None,
    model: str | None = None,
    limit: int = MOST_GROUPS,
) -> Spending:
    """Sums of the calls that were answered from `since` on and before `until`.

    Raises Unavailable, TookTooLong.
    """
    given = {"since": since, "until": until, "agent": agent, "model": model}
    said = {name: value for name, value in given.items() if value is not None}
    async with database.transaction() as connection:
        statement = text(_statement(by, tuple(said)))
        found = (await connection.execute(statement, {**said, "limit": limit})).all()
    (total,) = (row for row in found if row.is_total)
    groups = [_group(row, by) for row in found if not row.is_total]
    return Spending(
        groups=groups, total=_usage(total), left_out=max(0, total.groups - limit) if by else 0
    )


async def calls_of(database: Database, task_id: str, *, limit: int = MOST_CALLS) -> list[Any]:
    """The calls that a task made, the first first; one more than `limit` where there are."""
    query = (
        select(ModelCallRow)
        .where(ModelCallRow.task_id == task_id)
        .order_by(ModelCallRow.at, ModelCallRow.id)
        .limit(limit + 1)
    )
    async with database.session() as session:
        return list(await session.scalars(query))


async def totals(database: Database) -> list[Group]:
    """By agent and model, of all time; those past MOST_PAIRS as one. A look at a small table."""
    async with database.transaction() as connection:
        found = (await connection.execute(_TOTALS, {"most": MOST_PAIRS, "other": OTHER})).all()
    return [Group(usage=_usage(row), agent=row.agent, model=row.model) for row in found]


_TOTALS = text(
    "SELECT CASE WHEN late THEN :other ELSE agent END AS agent,"  # noqa: S608 - our own names
    " CASE WHEN late THEN :other ELSE model END AS model,"
    f" {', '.join(f'sum({name}) AS {name}' for name in _SUMMED)} FROM"
    " (SELECT *, row_number() OVER (ORDER BY first_at, agent, model) > :most AS late"
    " FROM usage_totals) AS t GROUP BY 1, 2 ORDER BY 1, 2"
)


def _statement(by: Sequence[By], filters: Sequence[str]) -> str:
    """The groups and their total in one look at the calls."""
    where = " AND ".join(_FILTERS[name] for name in filters) or "true"
    names = [each.value for each in by]
    picked = "".join(f"{_GROUPS[each]} AS {each.value}, " for each in by)
    shown = "".join(f"{name}, " for name in names)
    newest = ["day DESC"] if By.DAY in by else []
    order = ", ".join(
        [*newest, "cost_usd DESC NULLS LAST", "input_tokens + output_tokens DESC", *names]
    )
    nothing = "".join(f"NULL AS {name}, " for name in names)
    total = ", ".join(f"sum({name}) AS {name}" for name in _SUMMED)
    grouped = f"GROUP BY {', '.join(map(str, range(1, len(by) + 1)))}" if by else ""
    return (
        f"WITH sums AS (SELECT {picked}{_SUMS} FROM model_calls WHERE {where} {grouped})"  # noqa: S608 - our own names
        f" (SELECT {nothing}{total}, count(*) AS groups, true AS is_total FROM sums)"
        f" UNION ALL (SELECT {shown}{', '.join(_SUMMED)}, 0, false FROM sums"
        f" WHERE requests > 0 ORDER BY {order} LIMIT :limit)"
    )


def _group(row: Any, by: Sequence[By]) -> Group:
    return Group(usage=_usage(row), **{each.value: getattr(row, each.value) for each in by})


def _usage(row: Any) -> Usage:
    return Usage(
        requests=int(row.requests or 0),
        input_tokens=int(row.input_tokens or 0),
        output_tokens=int(row.output_tokens or 0),
        cached_tokens=int(row.cached_tokens or 0),
        tool_calls=int(row.tool_calls or 0),
        cost_usd=row.cost_usd,
        unpriced_requests=int(row.unpriced_requests or 0),
    )
