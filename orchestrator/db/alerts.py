"""Stores alerts with the tasks that they became, and who has seen to them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from orchestrator.alert import Alert
from orchestrator.db.accepting import accept
from orchestrator.db.bulk import Insert
from orchestrator.db.models import AlertRow
from orchestrator.db.recording import write, write_audit
from orchestrator.db.session import Database, unrecordable
from orchestrator.errors import OrchestratorError
from orchestrator.record import AuditEntry, Writes
from orchestrator.task import Task, TaskId, iso, new_id

INSERT_ALERTS = Insert(
    "alerts",
    {
        "id": "uuid", "kind": "text", "source": "text", "severity": "text", "signature": "text",
        "signature_id": "bigint", "category": "text", "action": "text", "src_ip": "text",
        "src_port": "int", "dest_ip": "text", "dest_port": "int", "proto": "text",
        "app_proto": "text", "direction": "text", "host": "text", "occurred_at": "timestamptz",
        "received_at": "timestamptz", "details": "jsonb", "task_ids": "text[]",
        "entry_id": "text",
    },
    "ON CONFLICT (id) DO NOTHING",
)  # fmt: skip


class AlertNotFound(OrchestratorError):
    """No alerts of these ids; one that was just sent is stored a moment later."""

    def __init__(self, alert_ids: Sequence[str]) -> None:
        self.alert_ids = alert_ids
        super().__init__(f"no alert {', '.join(alert_ids)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedAlert:
    """An alert as read, and the tasks that rules make of it."""

    alert: Alert
    received_at: datetime
    entry_id: str  # on its kind's stream
    tasks: tuple[Task, ...]


class _Row:
    """An alert with the columns that are not its own."""

    def __init__(self, received: ReceivedAlert) -> None:
        self.alert = received.alert
        self.received_at = received.received_at
        self.entry_id = received.entry_id
        # Ids are hexadecimal and hyphens: nothing to quote in an array's text.
        self.task_ids = "{" + ",".join(task.task_id for task in received.tasks) + "}"
        self.details = {**received.alert.details}
        if received.alert.sensor:
            self.details["sensor"] = received.alert.sensor

    def __getattr__(self, name: str) -> Any:
        return getattr(self.alert, name)


async def store_alerts(
    database: Database, received: Sequence[ReceivedAlert], *, also: Writes, actor: str
) -> dict[TaskId, bool]:
    """Store each alert once and accept its tasks; task id -> True where it is new.

    Raises Unavailable (nothing is written), Unrecordable, TaskIdConflict.
    """
    tasks = [task for each in received for task in each.tasks]
    try:
        async with database.transaction() as connection:
            await INSERT_ALERTS.run(connection, [_Row(each) for each in received])
            created = await accept(connection, tasks, actor=actor) if tasks else {}
            await write(connection, also)
    except DBAPIError as error:
        raise unrecordable(error) from error
    return created


async def stored(database: Database, alert_ids: Collection[str]) -> set[str]:
    """Those of these ids that have a row. Raises Unavailable."""
    async with database.session() as session:
        return set(await session.scalars(select(AlertRow.id).where(AlertRow.id.in_(alert_ids))))


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
