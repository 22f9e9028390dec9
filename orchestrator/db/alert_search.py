"""How alerts are searched: the index that a filter walks, and the window that a page looks at."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Subquery,
    and_,
    func,
    literal_column,
    select,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.alert import Severity
from orchestrator.db.models import AlertRow, InvestigationAlertRow

# Filters that few alerts pass, or that are an index in the list's order; the choosiest first.
WALKED = (
    "investigation_id", "address", "src_ip", "dest_ip", "severity", "min_severity", "acknowledged",
)  # fmt: skip


def ways(row: type[AlertRow], name: str, value: Any) -> list[ColumnElement[bool]]:
    """What the filter asks of a row, as conditions of which one at most is true of it."""
    match name:
        case "address":
            dest_only = and_(row.dest_ip == value, row.src_ip.is_distinct_from(value))
            return [row.src_ip == value, dest_only]
        case "min_severity":
            least = Severity(value).rank
            return [row.severity == each.value for each in Severity if each.rank >= least]
        case "acknowledged":
            at = row.acknowledged_at
            return [at.is_not(None) if value else at.is_(None)]
        case "investigation_id":
            its = select(InvestigationAlertRow.alert_id).where(
                InvestigationAlertRow.investigation_id == value
            )
            return [row.id.in_(its)]
        case "signature":
            return [row.signature.icontains(value, autoescape=True)]
        case _:
            return [getattr(row, name) == value]


def window_of(
    ways: list[ColumnElement[bool]], within: list[ColumnElement[bool]], size: int
) -> Subquery:
    """The newest `size` alerts that come by one of these ways, each of which is an index."""
    # In the text, so that the planner sees it and walks an index rather than sorting.
    most: ColumnElement[int] = literal_column(str(size))
    newest = (AlertRow.received_at.desc(), AlertRow.id.desc())
    walks = [select(AlertRow).where(way, *within).order_by(*newest).limit(most) for way in ways]
    if len(walks) == 1:
        return walks[0].subquery()
    merged = union_all(*(select(each.subquery()) for each in walks)).subquery()
    order = (merged.c.received_at.desc(), merged.c.id.desc())
    return select(merged).order_by(*order).limit(most).subquery()


async def end_of(session: AsyncSession, window: Subquery, size: int) -> tuple[datetime, str] | None:
    """The oldest alert of a full window; None where the window came to the end of the table."""
    at, row_id = window.c.received_at, window.c.id
    looked_at = func.count().over()
    oldest = select(at, row_id, looked_at).order_by(at, row_id).limit(1)
    found = (await session.execute(oldest)).one_or_none()
    return (found[0], found[1]) if found is not None and found[2] >= size else None
