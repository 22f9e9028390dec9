"""The tables. Their names and those of their columns are an interface: people query them."""

from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import BigInteger, Computed, Index, UniqueConstraint, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from orchestrator.db.columns import (
    A_PERSON,
    AN_ACT,
    CAUSE,
    OPEN,
    UNHAPPY,
    Base,
    uuid_column,
)


class TaskRow(Base):
    """Every task that was accepted or seen, whoever published it."""

    __tablename__ = "tasks"

    id: Mapped[str] = uuid_column(primary_key=True)
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
    parent_id: Mapped[str | None] = uuid_column()
    root_id: Mapped[str | None] = uuid_column()
    created_at: Mapped[datetime]
    run_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    budget: Mapped[dict[str, Any] | None]
    published_at: Mapped[datetime | None]
    stream: Mapped[str | None]
    entry_id: Mapped[str | None]  # of the last message seen for this task
    worker: Mapped[str | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    cancel_requested_at: Mapped[datetime | None]
    cancel_requested_by: Mapped[str | None]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    traceparent: Mapped[str | None]  # the span that sent it, for who publishes it again

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

    task_id: Mapped[str] = uuid_column(primary_key=True)
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
    """Attempts worth a line of their own: long, failed and retried ones, and who called a model."""

    __tablename__ = "attempts"

    task_id: Mapped[str] = uuid_column(primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    state: Mapped[str]
    error: Mapped[dict[str, Any] | None]
    usage: Mapped[dict[str, Any] | None]
    worker: Mapped[str | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class ModelCallRow(Base):
    """Every answered call of a model, once: the record of what was spent. Only ever inserted.

    What results, attempts and the totals say of usage is reckoned from here.
    """

    __tablename__ = "model_calls"

    id: Mapped[str] = uuid_column(primary_key=True)
    task_id: Mapped[str] = uuid_column()
    agent: Mapped[str]
    attempt: Mapped[int]
    model: Mapped[str]  # "openai:gpt-5-mini"
    at: Mapped[datetime]  # when it had answered
    seconds: Mapped[float]
    input_tokens: Mapped[int] = mapped_column(BigInteger)  # those of the cache as well
    output_tokens: Mapped[int] = mapped_column(BigInteger)
    cached_tokens: Mapped[int] = mapped_column(BigInteger)
    tool_calls: Mapped[int] = mapped_column(BigInteger)  # that the answer asked for
    cost_usd: Mapped[Decimal | None]  # null: the price is not known
    worker: Mapped[str | None]

    __table_args__ = (
        Index("ix_model_calls_task", "task_id", "attempt"),
        Index("ix_model_calls_at", "at"),
    )


class UsageTotalRow(Base):
    """The sums of `model_calls` by agent and model, kept as calls are recorded: for /metrics."""

    __tablename__ = "usage_totals"

    agent: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)
    requests: Mapped[int] = mapped_column(BigInteger)
    input_tokens: Mapped[Decimal]
    output_tokens: Mapped[Decimal]
    cached_tokens: Mapped[Decimal]
    tool_calls: Mapped[Decimal]
    cost_usd: Mapped[Decimal | None]  # of those with a known price
    unpriced_requests: Mapped[int] = mapped_column(BigInteger)
    first_at: Mapped[datetime] = mapped_column(server_default=func.now())


class DeadLetterRow(Base):
    """Messages that were set aside, with what they said and why."""

    __tablename__ = "dead_letters"

    id: Mapped[str] = uuid_column(primary_key=True)
    stream: Mapped[str]
    entry_id: Mapped[str]
    task_id: Mapped[str | None] = uuid_column()
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
    redriven_task_id: Mapped[str | None] = uuid_column()

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

    id: Mapped[str] = uuid_column(primary_key=True)
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
    last_task_id: Mapped[str | None] = uuid_column()
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

    schedule_id: Mapped[str] = uuid_column(primary_key=True)
    fire_at: Mapped[datetime] = mapped_column(primary_key=True)
    revision: Mapped[int]
    outcome: Mapped[str]  # "fired", "waiting" (for the one before it), "missed", "skipped"
    reason: Mapped[str | None]
    task_id: Mapped[str | None] = uuid_column()
    decided_at: Mapped[datetime] = mapped_column(server_default=func.now())
    decided_by: Mapped[str]


class AlertRow(Base):
    """Every alert that came in, once, and the task that it became."""

    __tablename__ = "alerts"

    id: Mapped[str] = uuid_column(primary_key=True)
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

    id: Mapped[str] = uuid_column(primary_key=True)
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

    alert_id: Mapped[str] = uuid_column(primary_key=True)
    rule: Mapped[str] = mapped_column(primary_key=True)
    investigation_id: Mapped[str] = uuid_column()

    __table_args__ = (Index("ix_investigation_alerts", "investigation_id", "alert_id"),)


class AuditRow(Base):
    """Who did what to which object, when. Only ever inserted."""

    __tablename__ = "audit_events"

    id: Mapped[str] = uuid_column(primary_key=True)
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
