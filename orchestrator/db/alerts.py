"""Stores alerts with the tasks that they became, in one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.exc import DBAPIError

from orchestrator.alert import Alert
from orchestrator.db.accepting import accept
from orchestrator.db.bulk import Insert
from orchestrator.db.recording import write
from orchestrator.db.session import Database, unrecordable
from orchestrator.record import Writes
from orchestrator.task import Task, TaskId

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
