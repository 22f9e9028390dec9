"""Alerts that people live with, their investigations, sign-ins, and the search of the audit.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

CAUSE = (
    "md5(reason || ' ' || regexp_replace(left(detail, 300),"
    r" '[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|\m[0-9a-fA-F]{12,}\M"
    "|[0-9]+([.:-][0-9]+)*', '#', 'g'))"
)


def _at(name: str, *, nullable: bool = True, **options: object) -> sa.Column:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable, **options)


def upgrade() -> None:
    op.add_column("alerts", sa.Column("entry_id", sa.Text()))
    op.add_column("alerts", _at("acknowledged_at"))
    op.add_column("alerts", sa.Column("acknowledged_by", sa.Text()))
    op.create_index(
        "ix_alerts_entry",
        "alerts",
        [
            "kind",
            sa.text("(split_part(entry_id, '-', 1)::bigint)"),
            sa.text("(split_part(entry_id, '-', 2)::bigint)"),
        ],
        postgresql_where=sa.text("entry_id IS NOT NULL"),
    )
    op.create_index("ix_alerts_severity", "alerts", ["severity", "received_at", "id"])
    op.create_index("ix_alerts_src_ip", "alerts", ["src_ip", "received_at", "id"])
    op.create_index("ix_alerts_dest_ip", "alerts", ["dest_ip", "received_at", "id"])
    op.create_index(
        "ix_alerts_unacknowledged",
        "alerts",
        ["received_at", "id"],
        postgresql_where=sa.text("acknowledged_at IS NULL"),
    )
    op.create_table(
        "investigations",
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("agent", sa.Text(), nullable=False),
        sa.Column("severity", sa.Text(), nullable=False),
        sa.Column("alerts", sa.Integer(), nullable=False),
        _at("first_alert_at", nullable=False),
        _at("last_alert_at", nullable=False),
        _at("opened_at", nullable=False, server_default=sa.text("now()")),
        _at("open_until", nullable=False),
        _at("closed_at"),
        sa.Column("task_ids", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "uq_investigations_open",
        "investigations",
        ["rule", "key"],
        unique=True,
        postgresql_where=sa.text("closed_at IS NULL"),
    )
    op.create_index("ix_investigations_opened", "investigations", ["opened_at", "id"])
    op.create_index(
        "ix_investigations_over",
        "investigations",
        ["open_until"],
        postgresql_where=sa.text("closed_at IS NULL"),
    )
    op.create_table(
        "investigation_alerts",
        sa.Column("alert_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.Column("investigation_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.PrimaryKeyConstraint("alert_id", "rule"),
    )
    op.create_index(
        "ix_investigation_alerts", "investigation_alerts", ["investigation_id", "alert_id"]
    )
    op.create_table(
        "sessions",
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        _at("created_at", nullable=False, server_default=sa.text("now()")),
        _at("expires_at", nullable=False),
        sa.PrimaryKeyConstraint("hash"),
    )
    op.create_index("ix_sessions_expires", "sessions", ["expires_at"])
    op.create_index(
        "ix_audit_events_act",
        "audit_events",
        ["action", "at", "id"],
        postgresql_where=sa.text("action NOT LIKE 'task.%'"),
    )
    op.create_index(
        "ix_audit_events_person",
        "audit_events",
        ["actor", "at", "id"],
        postgresql_where=sa.text("actor LIKE 'key:%'"),
    )
    op.add_column(
        "dead_letters",
        sa.Column("cause", sa.Text(), sa.Computed(CAUSE, persisted=True), nullable=False),
    )
    op.create_index(
        "ix_dead_letters_cause",
        "dead_letters",
        ["cause", "created_at", "id"],
        postgresql_where=sa.text("closed_at IS NULL"),
    )
    op.create_index(
        "ix_dead_letters_open",
        "dead_letters",
        ["created_at", "id"],
        postgresql_where=sa.text("closed_at IS NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_dead_letters_open", table_name="dead_letters")
    op.drop_column("dead_letters", "cause")  # and its index
    op.drop_index("ix_audit_events_person", table_name="audit_events")
    op.drop_index("ix_audit_events_act", table_name="audit_events")
    op.drop_table("sessions")
    op.drop_table("investigation_alerts")
    op.drop_table("investigations")
    for name in ("unacknowledged", "dest_ip", "src_ip", "severity", "entry"):
        op.drop_index(f"ix_alerts_{name}", table_name="alerts")
    for name in ("acknowledged_by", "acknowledged_at", "entry_id"):
        op.drop_column("alerts", name)
