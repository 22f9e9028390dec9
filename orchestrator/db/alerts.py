"""Stores alerts with the tasks and investigations that they became, in one transaction."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from orchestrator.alert import Alert
from orchestrator.db.accepting import accept
from orchestrator.db.bulk import Insert
from orchestrator.db.investigations import enrol
from orchestrator.db.models import AlertRow
from orchestrator.db.recording import write
from orchestrator.db.session import Database, unrecordable
from orchestrator.investigation import Make, Member
from orchestrator.record import DeadLetterRecord, Writes
from orchestrator.rule import Claim, RuleFailed
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
    # A redriven alert may have become a task that it was not before, its rule having failed.
    "ON CONFLICT (id) DO UPDATE SET task_ids ="
    " (SELECT array_agg(DISTINCT each) FROM unnest(alerts.task_ids || excluded.task_ids) AS each)"
    " WHERE NOT alerts.task_ids @> excluded.task_ids",
)  # fmt: skip

_TIMES = text(
    "SELECT id::text AS id, occurred_at FROM alerts"
    " WHERE id = ANY(string_to_array(CAST(:ids AS text), ',')::uuid[])"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedAlert:
    """An alert as read, and what rules make of it."""

    alert: Alert
    received_at: datetime
    entry_id: str  # on its kind's stream
    tasks: tuple[Task, ...] = ()  # of rules that take it by itself
    claims: tuple[Claim, ...] = ()  # of rules that hold it with others
    refused: tuple[RuleFailed, ...] = ()
    # The dead letter that says which rules failed; asked for when all of them are known.
    letter: Callable[[Sequence[RuleFailed]], DeadLetterRecord]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What a batch of alerts came to, committed."""

    tasks: list[Task]  # new ones, to be published
    replaced: list[TaskId]  # whose end has been asked for


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
    database: Database, received: Sequence[ReceivedAlert], *, also: Writes, make: Make, actor: str
) -> Stored:
    """Store each alert once, add it to its investigations, and accept the tasks.

    Where a rule failed, the alert is stored and gets a letter beside it. Raises Unavailable
    (nothing is written), Unrecordable, TaskIdConflict.
    """
    # By id, as another handler stores its copies: two of us then wait and never deadlock. The
    # first of several copies counts.
    rows = {each.alert.id: _Row(each) for each in reversed(received)}
    try:
        async with database.transaction() as connection:
            await INSERT_ALERTS.run(connection, [rows[each] for each in sorted(rows)])
            enrolled = await enrol(connection, _members(received), make, actor=actor)
            tasks = [task for each in received for task in each.tasks] + enrolled.tasks
            created = await accept(connection, tasks, actor=actor)
            for each in received:
                if failed := [*each.refused, *enrolled.refused.pop(each.alert.id, ())]:
                    also.set_aside(each.letter(failed), actor=actor)
            also.audit += enrolled.audit
            await write(connection, also)
    except DBAPIError as error:
        raise unrecordable(error) from error
    new = {task.task_id: task for task in tasks if created[task.task_id]}
    return Stored(tasks=list(new.values()), replaced=enrolled.replaced)


async def stored(database: Database, alert_ids: Collection[str]) -> set[str]:
    """Those of these ids that have a row. Raises Unavailable."""
    async with database.session() as session:
        return set(await session.scalars(select(AlertRow.id).where(AlertRow.id.in_(alert_ids))))


async def known_times(database: Database, alert_ids: Sequence[str]) -> dict[str, datetime]:
    """When those of these alerts that are stored occurred. Raises Unavailable."""
    try:
        async with database.transaction() as connection:
            # One text, as the driver checks each value of an array.
            found = await connection.execute(_TIMES, {"ids": ",".join(alert_ids)})
            return {row.id: row.occurred_at for row in found}
    except DBAPIError as error:
        raise unrecordable(error) from error


def _members(received: Sequence[ReceivedAlert]) -> list[Member]:
    return [
        Member(alert=each.alert, received_at=each.received_at, rule=claim.rule, key=claim.key)
        for each in received
        for claim in each.claims
        if claim.key is not None
    ]
