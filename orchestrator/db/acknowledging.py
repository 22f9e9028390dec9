"""Notes who sees to which alerts, and that they did not, with what the audit says of it."""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime

from sqlalchemy import select

from orchestrator.db.models import AlertRow
from orchestrator.db.recording import write_audit
from orchestrator.db.session import Database
from orchestrator.errors import OrchestratorError
from orchestrator.record import AuditEntry
from orchestrator.task import iso, new_id


class AlertNotFound(OrchestratorError):
    """No alerts of these ids; one that was just sent is stored a moment later."""

    def __init__(self, alert_ids: Sequence[str]) -> None:
        self.alert_ids = alert_ids
        super().__init__(f"no alert {', '.join(alert_ids)}")


async def acknowledge(
    database: Database, alert_ids: Collection[str], *, actor: str
) -> list[AlertRow]:
    """Note that somebody sees to these alerts; their rows as they then stand, by id.

    Who was first stays: an alert that is acknowledged already is left as it is. All or none.
    Raises AlertNotFound, Unavailable.
    """
    return await _see_to(database, alert_ids, actor=actor, by=actor)


async def unacknowledge(
    database: Database, alert_ids: Collection[str], *, actor: str
) -> list[AlertRow]:
    """Take an acknowledgement back, whoever gave it; the rest as above."""
    return await _see_to(database, alert_ids, actor=actor, by=None)


async def _see_to(
    database: Database, alert_ids: Collection[str], *, actor: str, by: str | None
) -> list[AlertRow]:
    # In the order of their ids, so that two who mean the same alerts wait and never deadlock.
    asked = select(AlertRow).where(AlertRow.id.in_(alert_ids)).order_by(AlertRow.id)
    now = datetime.now(UTC)
    entries = []
    async with database.session() as session:
        rows = list(await session.scalars(asked.with_for_update()))
        if missing := sorted({*alert_ids} - {row.id for row in rows}):
            raise AlertNotFound(missing)
        for row in rows:
            if (row.acknowledged_at is None) == (by is None):
                continue
            before = _acknowledgement(row)
            row.acknowledged_at, row.acknowledged_by = (now if by else None), by
            entries.append(
                AuditEntry(
                    id=new_id(),
                    at=now,
                    action="alert.acknowledged" if by else "alert.unacknowledged",
                    actor=actor,
                    object_type="alert",
                    object_id=row.id,
                    before=before,
                    after=_acknowledgement(row),
                )
            )
        await session.flush()
        await write_audit(await session.connection(), entries)
    return rows


def _acknowledgement(row: AlertRow) -> dict[str, str | None]:
    at = row.acknowledged_at
    return {"acknowledged_at": iso(at) if at else None, "acknowledged_by": row.acknowledged_by}
