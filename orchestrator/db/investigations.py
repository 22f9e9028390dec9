"""Keeps investigations: opens them, adds alerts to them, closes those whose time is over.

All of it in the transaction that stores the alerts (`db.alerts`). Several handlers may have alerts
of one story in hand: they take the rows in one order, so they wait for each other and never
deadlock.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.alert import Severity
from orchestrator.db.bulk import Insert, parameters, picked, texts, unnested
from orchestrator.investigation import Joined, Make, Member, Standing, join
from orchestrator.record import AuditEntry
from orchestrator.rule import RuleFailed
from orchestrator.task import Task, TaskId, new_id

SWEPT = 500  # investigations closed after a batch, at most

_OPENED = {
    "id": "uuid", "rule": "text", "key": "text", "agent": "text", "seconds": "float8",
    "at": "timestamptz",
}  # fmt: skip
# Who meets an open one locks it, in the very statement that opens the others: one order for all.
# Postgres' clock says how long, whichever handler opens it.
_OPEN = text(
    "INSERT INTO investigations (id, rule, key, agent, severity, alerts, first_alert_at,"  # noqa: S608
    " last_alert_at, open_until, task_ids)"
    " SELECT id, rule, key, agent, 'info', 0, at, at, now() + make_interval(secs => seconds), '{}'"
    f" FROM (SELECT {picked(_OPENED)} FROM {unnested(tuple(_OPENED), lambda i: f':p{i}')}) AS g"
    " ON CONFLICT (rule, key) WHERE closed_at IS NULL DO UPDATE SET rule = excluded.rule"
    " RETURNING id::text, rule, key, opened_at, severity, alerts, first_alert_at, last_alert_at,"
    " task_ids, open_until <= now() AS is_over"
)
_CLOSE = text(
    "UPDATE investigations SET closed_at = open_until WHERE id = ANY(CAST(:ids AS uuid[]))"
)
# What somebody has in hand is theirs to close, and waiting for it would be a deadlock.
_SWEEP = text(
    "UPDATE investigations SET closed_at = open_until WHERE id IN (SELECT id FROM investigations"
    " WHERE closed_at IS NULL AND open_until <= now() LIMIT :most FOR UPDATE SKIP LOCKED)"
)
_LINK = Insert(
    "investigation_alerts",
    {"rule": "text", "alert_id": "uuid", "investigation_id": "uuid"},
    "ON CONFLICT DO NOTHING RETURNING rule, alert_id::text",
)
_UNLINKED = {"rule": "text", "alert_id": "uuid"}
_UNLINK = text(
    "DELETE FROM investigation_alerts AS l USING"  # noqa: S608
    f" (SELECT {picked(_UNLINKED)} FROM {unnested(tuple(_UNLINKED), lambda i: f':p{i}')}) AS g"
    " WHERE l.rule = g.rule AND l.alert_id = g.alert_id"
)
_CHANGED = {
    "id": "uuid", "severity": "text", "alerts": "int", "first_alert_at": "timestamptz",
    "last_alert_at": "timestamptz", "task_ids": "text[]",
}  # fmt: skip
_CHANGE = text(
    "UPDATE investigations AS i SET severity = g.severity, alerts = g.alerts,"  # noqa: S608
    " first_alert_at = g.first_alert_at, last_alert_at = g.last_alert_at, task_ids = g.task_ids"
    f" FROM (SELECT {picked(_CHANGED)} FROM {unnested(tuple(_CHANGED), lambda i: f':p{i}')}) AS g"
    " WHERE i.id = g.id"
)
_DROP = text("DELETE FROM investigations WHERE id = ANY(CAST(:ids AS uuid[])) AND alerts = 0")
_REPLACE = text(
    "UPDATE tasks SET cancel_requested_at = now(), cancel_requested_by = :actor"
    " WHERE id = ANY(CAST(:ids AS uuid[])) AND state = 'scheduled' AND run_at > now()"
    " AND cancel_requested_at IS NULL RETURNING id::text"
)


@dataclass(slots=True)
class Enrolled:
    """What came of some alerts' claims; `tasks` are not accepted yet."""

    tasks: list[Task] = field(default_factory=list)
    replaced: list[TaskId] = field(default_factory=list)
    refused: dict[str, list[RuleFailed]] = field(default_factory=lambda: defaultdict(list))
    audit: list[AuditEntry] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Opening:
    id: str
    rule: str
    key: str
    agent: str
    seconds: float
    at: datetime


@dataclass(frozen=True, slots=True)
class _Link:
    rule: str
    alert_id: str
    investigation_id: str


Place = tuple[str, str]  # rule and key


async def enrol(
    connection: AsyncConnection, members: Sequence[Member], make: Make, *, actor: str
) -> Enrolled:
    """Add alerts to the open investigations of their keys, opening what is missing.

    An alert counts once for a rule, however often it comes. The caller accepts the tasks, and
    commits.
    """
    found = Enrolled()
    if not members:
        return found
    once = {(each.alert.id, each.rule.name): each for each in reversed(members)}
    by_place: dict[Place, list[Member]] = defaultdict(list)
    for each in reversed(once.values()):
        by_place[each.rule.name, each.key].append(each)
    standing = await _open(connection, by_place)
    links = sorted(
        (
            _Link(each.rule.name, each.alert.id, standing[place].id)
            for place, here in by_place.items()
            for each in here
        ),
        key=lambda link: (link.alert_id, link.rule),
    )
    fresh = {(row.alert_id, row.rule) for row in await _LINK.run(connection, links)}
    changes = [
        join(standing[place], [m for m in here if (m.alert.id, m.rule.name) in fresh], make)
        for place, here in by_place.items()
    ]
    await _write(connection, changes)
    found.tasks = [each.task for each in changes if each.task is not None]
    for member, error in (pair for each in changes for pair in each.refused):
        found.refused[member.alert.id].append(error)
    if waiting := [each.replaced for each in changes if each.replaced is not None]:
        rows = await connection.execute(_REPLACE, {"ids": waiting, "actor": actor})
        found.replaced = [row[0] for row in rows]
        found.audit = [_cancel_said(task_id, actor) for task_id in found.replaced]
    await connection.execute(_SWEEP, {"most": SWEPT})
    return found


async def _open(
    connection: AsyncConnection, by_place: dict[Place, list[Member]]
) -> dict[Place, Standing]:
    """The open investigation of each place, locked; one whose time is over makes way."""
    found = await _upsert(connection, [(place, by_place[place][0]) for place in sorted(by_place)])
    over = {place: row.id for place, row in found.items() if row.is_over}
    if over:
        await connection.execute(_CLOSE, {"ids": list(over.values())})
        found |= await _upsert(connection, [(place, by_place[place][0]) for place in sorted(over)])
    return {
        place: Standing(
            id=row.id,
            rule=row.rule,
            key=row.key,
            opened_at=row.opened_at,
            severity=Severity(row.severity),
            alerts=row.alerts,
            first_alert_at=row.first_alert_at,
            last_alert_at=row.last_alert_at,
            task_ids=tuple(row.task_ids),
        )
        for place, row in found.items()
    }


async def _upsert(
    connection: AsyncConnection, wanted: Iterable[tuple[Place, Member]]
) -> dict[Place, Any]:
    openings = [
        _Opening(
            id=new_id(),
            rule=rule,
            key=key,
            agent=member.rule.agent.name,
            seconds=member.rule.window.total_seconds(),
            at=member.received_at,
        )
        for (rule, key), member in wanted
    ]
    rows = await connection.execute(_OPEN, parameters(texts(openings, _OPENED)))
    return {(row.rule, row.key): row for row in rows}


async def _write(connection: AsyncConnection, changes: Sequence[Joined]) -> None:
    changed = [_Changed(each.after) for each in changes if each.after.alerts]
    if changed:
        await connection.execute(_CHANGE, parameters(texts(changed, _CHANGED)))
    refused = [
        _Link(member.rule.name, member.alert.id, each.after.id)
        for each in changes
        for member, _ in each.refused
    ]
    if refused:
        await connection.execute(_UNLINK, parameters(texts(refused, _UNLINKED)))
    # Opened for alerts that had come before, or that its rule could not use.
    if empty := [each.after.id for each in changes if not each.after.alerts]:
        await connection.execute(_DROP, {"ids": empty})


class _Changed:
    """An investigation's values as columns."""

    def __init__(self, after: Standing) -> None:
        self.id = after.id
        self.severity = after.severity.value
        self.alerts = after.alerts
        self.first_alert_at = after.first_alert_at
        self.last_alert_at = after.last_alert_at
        # Ids are hexadecimal and hyphens: nothing to quote in an array's text.
        self.task_ids = "{" + ",".join(after.task_ids) + "}"


def _cancel_said(task_id: TaskId, actor: str) -> AuditEntry:
    return AuditEntry(
        id=new_id(),
        at=datetime.now(UTC),
        action="task.cancel_requested",
        actor=actor,
        object_type="task",
        object_id=task_id,
        before={"state": "scheduled"},
        detail={"why": "a critical alert joined its investigation, whose task runs at once"},
    )
