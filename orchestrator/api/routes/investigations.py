"""/api/v1/investigations: the stories that rules make of alerts, and their alerts. Read only."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import Query

from orchestrator.alert import Severity
from orchestrator.api import paging
from orchestrator.api.auth import needs
from orchestrator.api.paging import Cursor, Limit, Listed, Moment, Text
from orchestrator.api.parts import ApiParts, Parts
from orchestrator.api.problems import Problem
from orchestrator.api.requests import guarded
from orchestrator.api.schemas import AlertSummary, InvestigationOut
from orchestrator.db import listing
from orchestrator.db.keys import Scope
from orchestrator.db.models import InvestigationRow

router = guarded("/api/v1/investigations", "investigations")


@router.get("", operation_id="listInvestigations", dependencies=[needs(Scope.ALERTS_READ)])
async def list_investigations(
    parts: Parts,
    *,
    rule: Text | None = None,
    key: Text | None = None,
    severity: Severity | None = None,
    alert: Annotated[UUID | None, Query(description="that is one of its alerts")] = None,
    is_open: Annotated[
        bool | None, Query(alias="open", description="whether more alerts may join")
    ] = None,
    since: Moment | None = None,
    until: Moment | None = None,
    limit: Limit = paging.DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Listed[InvestigationOut]:
    """Investigations by their beginning, the newest first; `since` is included, `until` is not."""
    filters: dict[str, Any] = {
        "rule": rule, "key": key, "severity": severity, "is_open": is_open,
        "alert_id": None if alert is None else str(alert), "since": since, "until": until,
    }  # fmt: skip
    after = paging.after(cursor, filters)
    page = await listing.investigations(parts.database, **filters, after=after, limit=limit)
    return paging.listed(page, InvestigationOut.model_validate, filters)


@router.get(
    "/{investigation_id}",
    operation_id="getInvestigation",
    dependencies=[needs(Scope.ALERTS_READ)],
)
async def get_investigation(investigation_id: UUID, parts: Parts) -> InvestigationOut:
    """One investigation."""
    return InvestigationOut.model_validate(await _existing(parts, investigation_id))


@router.get(
    "/{investigation_id}/alerts",
    operation_id="listInvestigationAlerts",
    dependencies=[needs(Scope.ALERTS_READ)],
)
async def list_members(
    investigation_id: UUID,
    parts: Parts,
    *,
    limit: Limit = paging.DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Listed[AlertSummary]:
    """An investigation's alerts by arrival, the newest first."""
    row = await _existing(parts, investigation_id)
    filters = {"investigation_id": row.id}
    after = paging.after(cursor, filters)
    page = await listing.members(parts.database, row.id, after=after, limit=limit)
    return paging.listed(page, AlertSummary.model_validate, filters)


async def _existing(parts: ApiParts, investigation_id: UUID) -> InvestigationRow:
    found = await listing.investigation(parts.database, str(investigation_id))
    if found is None:
        raise Problem(404, "investigation_not_found", f"no investigation {investigation_id}")
    return found
