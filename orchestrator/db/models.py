"""The tables. Their names and those of their columns are an interface: people query them."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Computed,
    DateTime,
    Index,
    Integer,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

OPEN = "state IN ('scheduled', 'queued', 'running', 'waiting', 'retrying')"
UNHAPPY = "state IN ('failed', 'cancelled', 'expired', 'dead')"
# Of the audit: what is no change of a task's state, and who came with an API key. Both are few.
AN_ACT = "action NOT LIKE 'task.%'"
A_PERSON = "actor LIKE 'key:%'"
# What a letter died of: its reason and what was said, without what differs from message to message.
# UUIDs, long hexadecimal words, and numbers with what is written inside them (times, addresses).
CAUSE = (
    "md5(reason || ' ' || regexp_replace(left(detail, 300),"
    r" '[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|\m[0-9a-fA-F]{12,}\M"
    "|[0-9]+([.:-][0-9]+)*', '#', 'g'))"
)


class Base(DeclarativeBase):
    """Types by annotation: text, timestamps with a zone, JSON as jsonb, ids as text."""

    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own way
        str: Text(),
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB(none_as_null=True),
        list[str]: ARRAY(Text()),
        int: Integer(),
    }


def _id(**options: Any) -> Any:
    return mapped_column(Uuid(as_uuid=False), **options)


class TaskRow(Base):
    """Every task that was accepted or seen, whoever published it."""

    __tablename__ = "tasks"

    id: Mapped[str] = _id(primary_key=True)
    agent: Mapped[str]
    queue: Mapped[str] = mapped_column(server_default="default")
    priority: Mapped[str] = mapped_column(server_default="normal")
    tenant: Mapped[str] = mapped_column(server_default="default")
    state: Mapped[str]
    # How far the task has come, as one number (task.progress): an update only ever raises it.
    progress: Mapped[int]
    attempt: Mapped[int] = mapped_column(server_default="1")
    crashes: Mapped[int] = mapped_column(server_default="0")
    # Null until the message itself was read: a result can be recorded before it.
    input: Mapped[dict[str, Any] | None]
    digest: Mapped[str | None]
    # Not "metadata", which SQLAlchemy's models reserve; the column has the name people expect.
    meta: Mapped[dict[str, Any] | None] = mapped_column("metadata")
    idempotency_key: Mapped[str | None]
    parent_id: Mapped[str | None] = _id()
    root_id: Mapped[str | None] = _id()
    created_at: Mapped[datetime]
    run_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    published_at: Mapped[datetime | None]
    stream: Mapped[str | None]
    entry_id: Mapped[str | None]  # of the last message seen for this task
    worker: Mapped[str | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    cancel_requested_at: Mapped[datetime | None]
    cancel_requested_by: Mapped[str | None]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        Index("ix_tasks_created", "created_at", "id"),
        Index("ix_tasks_agent", "agent", "created_at", "id"),
        # Partial: the great majority has succeeded, and these lists are about the others.
        Index("ix_tasks_open", "created_at", "id", postgresql_where=text(OPEN)),
        Index("ix_tasks_unhappy", "state", "created_at", "id", postgresql_where=text(UNHAPPY)),
        Index("ix_tasks_unpublished", "created_at", postgresql_where=text("published_at IS NULL")),
    )


class ResultRow(Base):
    """How each ended task ended; the primary key is the last guard of "one result a task"."""

    __tablename__ = "results"

    task_id: Mapped[str] = _id(primary_key=True)
    agent: Mapped[str]
    state: Mapped[str]
    attempt: Mapped[int]
    output: Mapped[Any | None] = mapped_column(JSONB(none_as_null=True))
    error: Mapped[dict[str, Any] | None]
    usage: Mapped[dict[str, Any] | None]
    worker: Mapped[str | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    recorded_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (Index("ix_results_recorded", "recorded_at"),)


class AttemptRow(Base):
    """Attempts worth a line of their own: long ones, failed ones, retried and superseded ones."""

    __tablename__ = "attempts"

    task_id: Mapped[str] = _id(primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    state: Mapped[str]
    error: Mapped[dict[str, Any] | None]
    usage: Mapped[dict[str, Any] | None]
    worker: Mapped[str | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class DeadLetterRow(Base):
    """Messages that were set aside, with what they said and why."""

    __tablename__ = "dead_letters"

    id: Mapped[str] = _id(primary_key=True)
    stream: Mapped[str]
    entry_id: Mapped[str]
    task_id: Mapped[str | None] = _id()
    agent: Mapped[str | None]
    reason: Mapped[str]
    detail: Mapped[str]
    # Kept with the row: digests of ten thousand letters are more than a page can wait for.
    cause: Mapped[str] = mapped_column(Computed(CAUSE, persisted=True))
    fields: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    closed_at: Mapped[datetime | None]
    closed_by: Mapped[str | None]
    closed_as: Mapped[str | None]  # "redriven" or "dropped"
    redriven_task_id: Mapped[str | None] = _id()

    __table_args__ = (
        UniqueConstraint("stream", "entry_id", name="uq_dead_letters_entry"),
        # Their ids are derived, so not in order of time.
        Index("ix_dead_letters_created", "created_at", "id"),
        Index(
            "ix_dead_letters_open",
            "created_at",
            "id",
            postgresql_where=text("closed_at IS NULL"),
        ),
        Index(
            "ix_dead_letters_cause",
            "cause",
            "created_at",
            "id",
            postgresql_where=text("closed_at IS NULL"),
        ),
    )


class ScheduleRow(Base):
    """What shall run when; declared on an agent or made through the API."""

    __tablename__ = "schedules"

    id: Mapped[str] = _id(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    agent: Mapped[str]
    expression: Mapped[str]
    timezone: Mapped[str]
    input: Mapped[dict[str, Any]]
    catchup: Mapped[str]
    catchup_window: Mapped[int]  # seconds
    overlap: Mapped[str]
    origin: Mapped[str]  # "agent" or "api"
    revision: Mapped[int] = mapped_column(server_default="1")
    # Ticks up to here have been decided; an edit or a new schedule begins at its own time.
    decided_until: Mapped[datetime]
    next_tick_at: Mapped[datetime]
    last_task_id: Mapped[str | None] = _id()
    paused_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        Index(
            "ix_schedules_due",
            "next_tick_at",
            postgresql_where=text("paused_at IS NULL AND deleted_at IS NULL"),
        ),
    )


class ScheduleTickRow(Base):
    """Each due tick, once: fired, or not and why. The key is what keeps schedulers apart."""

    __tablename__ = "schedule_ticks"

    schedule_id: Mapped[str] = _id(primary_key=True)
    fire_at: Mapped[datetime] = mapped_column(primary_key=True)
    revision: Mapped[int]
    outcome: Mapped[str]  # "fired", "waiting" (for the one before it), "missed", "skipped"
    reason: Mapped[str | None]
    task_id: Mapped[str | None] = _id()
    decided_at: Mapped[datetime] = mapped_column(server_default=func.now())
    decided_by: Mapped[str]


class AlertRow(Base):
    """Every alert that came in, once, and the task that it became."""

    __tablename__ = "alerts"

    id: Mapped[str] = _id(primary_key=True)
    kind: Mapped[str]
    source: Mapped[str]
    severity: Mapped[str]
    signature: Mapped[str]
    signature_id: Mapped[int | None] = mapped_column(BigInteger)
    category: Mapped[str]
    action: Mapped[str | None]
    src_ip: Mapped[str | None]
    src_port: Mapped[int | None]
    dest_ip: Mapped[str | None]
    dest_port: Mapped[int | None]
    proto: Mapped[str | None]
    app_proto: Mapped[str | None]
    direction: Mapped[str | None]
    host: Mapped[str | None]
    occurred_at: Mapped[datetime]
    received_at: Mapped[datetime]
    details: Mapped[dict[str, Any] | None]
    task_ids: Mapped[list[str]]
    entry_id: Mapped[str | None]  # on its kind's stream: where a live feed goes on
    acknowledged_at: Mapped[datetime | None]
    acknowledged_by: Mapped[str | None]

    __table_args__ = (
        Index("ix_alerts_received", "received_at", "id"),
        Index("ix_alerts_repetition", "signature_id", "src_ip", "occurred_at"),
        Index("ix_alerts_severity", "severity", "received_at", "id"),
        Index("ix_alerts_src_ip", "src_ip", "received_at", "id"),
        Index("ix_alerts_dest_ip", "dest_ip", "received_at", "id"),
        Index(
            "ix_alerts_unacknowledged",
            "received_at",
            "id",
            postgresql_where=text("acknowledged_at IS NULL"),
        ),
        # An entry id is two numbers, and sorts as such.
        Index(
            "ix_alerts_entry",
            "kind",
            text("(split_part(entry_id, '-', 1)::bigint)"),
            text("(split_part(entry_id, '-', 2)::bigint)"),
            postgresql_where=text("entry_id IS NOT NULL"),
        ),
    )


class InvestigationRow(Base):
    """Alerts that a rule holds for one story: one agent's work instead of thousands."""

    __tablename__ = "investigations"

    id: Mapped[str] = _id(primary_key=True)
    rule: Mapped[str]
    key: Mapped[str]  # what its alerts have in common, as the rule says it
    agent: Mapped[str]
    severity: Mapped[str]  # the highest of its alerts
    alerts: Mapped[int]
    first_alert_at: Mapped[datetime]
    last_alert_at: Mapped[datetime]
    opened_at: Mapped[datetime] = mapped_column(server_default=func.now())
    open_until: Mapped[datetime]  # an alert after that opens another one
    closed_at: Mapped[datetime | None]
    task_ids: Mapped[list[str]]

    __table_args__ = (
        # One open investigation a key, however many handlers read the stream.
        Index(
            "uq_investigations_open",
            "rule",
            "key",
            unique=True,
            postgresql_where=text("closed_at IS NULL"),
        ),
        Index("ix_investigations_opened", "opened_at", "id"),
        Index("ix_investigations_over", "open_until", postgresql_where=text("closed_at IS NULL")),
    )


class InvestigationAlertRow(Base):
    """An alert that belongs to an investigation; to one of each rule at most."""

    __tablename__ = "investigation_alerts"

    alert_id: Mapped[str] = _id(primary_key=True)
    rule: Mapped[str] = mapped_column(primary_key=True)
    investigation_id: Mapped[str] = _id()

    __table_args__ = (Index("ix_investigation_alerts", "investigation_id", "alert_id"),)


class AuditRow(Base):
    """Who did what to which object, when. Only ever inserted."""

    __tablename__ = "audit_events"

    id: Mapped[str] = _id(primary_key=True)
    at: Mapped[datetime]
    action: Mapped[str]
    actor: Mapped[str]
    object_type: Mapped[str]
    object_id: Mapped[str]
    before: Mapped[dict[str, Any] | None]
    after: Mapped[dict[str, Any] | None]
    detail: Mapped[dict[str, Any] | None]
    producer: Mapped[str | None]
    sequence: Mapped[int | None] = mapped_column(BigInteger)
    recorded_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        Index("ix_audit_events_at", "at", "id"),
        Index("ix_audit_events_object", "object_id", "at", "id"),
        # Partial: two of three rows are written with a task, whose path they would lengthen.
        Index("ix_audit_events_act", "action", "at", "id", postgresql_where=text(AN_ACT)),
        Index("ix_audit_events_person", "actor", "at", "id", postgresql_where=text(A_PERSON)),
        Index(
            "uq_audit_events_sequence",
            "producer",
            "sequence",
            unique=True,
            postgresql_where=text("sequence IS NOT NULL"),
        ),
    )


class ApiKeyRow(Base):
    """A key's hash and what it may do; the key itself is shown once and kept nowhere."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(primary_key=True)  # the key's public part, "ak_1f2e..."
    name: Mapped[str]
    hash: Mapped[str]  # SHA-256 of the secret part, hex; it is 256 random bits, no salt needed
    scopes: Mapped[list[str]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]


class SessionRow(Base):
    """A person's sign-in to the dashboard with an API key, good for as long as the key is."""

    __tablename__ = "sessions"

    hash: Mapped[str] = mapped_column(primary_key=True)  # SHA-256 of the cookie, hex
    key_id: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]

    __table_args__ = (Index("ix_sessions_expires", "expires_at"),)
