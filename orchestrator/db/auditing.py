"""Reads the audit trail for a person, and says in the trail that they did.

The API, the command line and the dashboard read it through here: who watched an inquiry is part
of it.
"""

from datetime import UTC, datetime
from typing import Any

from orchestrator.db import listing
from orchestrator.db.listing import After, Page
from orchestrator.db.models import AuditRow
from orchestrator.db.recording import write_audit
from orchestrator.db.session import Database
from orchestrator.record import AuditEntry
from orchestrator.task import new_id


async def read_audit(
    database: Database, *, reader: str, after: After | None = None, limit: int = 50, **filters: Any
) -> Page[AuditRow]:
    """One page as `listing.audit` finds it. `reader`: who looks ("key:ak_...", "cli").

    Raises Unavailable; nothing is shown then that is not written down.
    """
    page = await listing.audit(database, **filters, after=after, limit=limit)
    asked = {name: _said(value) for name, value in filters.items() if value is not None}
    entry = AuditEntry(
        id=new_id(),
        at=datetime.now(UTC),
        action="audit.read",
        actor=reader,
        object_type="audit",
        object_id="audit",
        detail={"filters": asked, "rows": len(page.rows), "first_page": after is None},
    )
    async with database.transaction() as connection:
        await write_audit(connection, [entry])
    return page


def _said(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
