"""/api/v1/audit: who did what. Read only; nothing here writes or removes."""

from typing import Any

from orchestrator.api import paging
from orchestrator.api.auth import needs
from orchestrator.api.paging import Cursor, Limit, Listed, Moment, Text
from orchestrator.api.parts import Parts
from orchestrator.api.requests import guarded
from orchestrator.api.schemas import AuditOut
from orchestrator.db import listing
from orchestrator.db.keys import Scope

router = guarded("/api/v1/audit", "audit")


@router.get("", operation_id="listAudit", dependencies=[needs(Scope.AUDIT_READ)])
async def list_audit(
    parts: Parts,
    *,
    object_id: Text | None = None,
    action: Text | None = None,
    actor: Text | None = None,
    since: Moment | None = None,
    until: Moment | None = None,
    limit: Limit = paging.DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Listed[AuditOut]:
    """Audit events, the newest first; `since` is included, `until` is not."""
    filters: dict[str, Any] = {
        "object_id": object_id, "action": action, "actor": actor, "since": since, "until": until,
    }  # fmt: skip
    after = paging.after(cursor, filters)
    page = await listing.audit(parts.database, **filters, after=after, limit=limit)
    return paging.listed(page, AuditOut.model_validate, filters)
