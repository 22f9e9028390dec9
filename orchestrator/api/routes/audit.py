"""/api/v1/audit: who did what. Nothing here changes or removes; that it was read is added."""

from typing import Annotated, Any

from fastapi import Query

from orchestrator.api import paging
from orchestrator.api.auth import Actor, needs
from orchestrator.api.paging import Cursor, Limit, Listed, Moment, Text
from orchestrator.api.parts import Parts
from orchestrator.api.problems import Problem
from orchestrator.api.requests import guarded
from orchestrator.api.schemas import AuditOut
from orchestrator.db.auditing import read_audit
from orchestrator.db.keys import Scope

router = guarded("/api/v1/audit", "audit")


@router.get("", operation_id="listAudit", dependencies=[needs(Scope.AUDIT_READ)])
async def list_audit(
    parts: Parts,
    actor_reading: Actor,
    *,
    object_type: Text | None = None,
    object_id: Text | None = None,
    action: Annotated[Text | None, Query(description='one, or all of a kind: "schedule.*"')] = None,
    actor: Text | None = None,
    contains: Annotated[Text | None, Query(description="a text in what was said")] = None,
    since: Moment | None = None,
    until: Moment | None = None,
    limit: Limit = paging.DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Listed[AuditOut]:
    """Audit events, the newest first; `since` is included, `until` is not.

    `contains` is searched for row by row, so it goes with `since`. Each look leaves an event.
    """
    if contains is not None and since is None:
        raise Problem(
            422, "invalid_request", "`contains` is searched for row by row: send `since` with it"
        )
    filters: dict[str, Any] = {
        "object_type": object_type, "object_id": object_id, "action": action, "actor": actor,
        "contains": contains, "since": since, "until": until,
    }  # fmt: skip
    after = paging.after(cursor, filters)
    page = await read_audit(
        parts.database, reader=actor_reading, **filters, after=after, limit=limit
    )
    return paging.listed(page, AuditOut.model_validate, filters)
