"""What calls of models cost, and what a task may spend on them.

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "tasks",
        sa.Column("budget", postgresql.JSONB(none_as_null=True, astext_type=sa.Text())),
    )
    op.create_table(
        "model_calls",
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("task_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("agent", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cached_tokens", sa.BigInteger(), nullable=False),
        sa.Column("tool_calls", sa.BigInteger(), nullable=False),
        sa.Column("cost_usd", sa.Numeric(), nullable=True),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_model_calls_task", "model_calls", ["task_id", "attempt"])
    op.create_index("ix_model_calls_at", "model_calls", ["at"])
    op.create_table(
        "usage_totals",
        sa.Column("agent", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        # Sums of bigints: a hostile message may bring 10^12 tokens, and a million of them overflow.
        sa.Column("input_tokens", sa.Numeric(), nullable=False),
        sa.Column("output_tokens", sa.Numeric(), nullable=False),
        sa.Column("cached_tokens", sa.Numeric(), nullable=False),
        sa.Column("tool_calls", sa.Numeric(), nullable=False),
        sa.Column("cost_usd", sa.Numeric(), nullable=True),
        sa.Column("unpriced_requests", sa.BigInteger(), nullable=False),
        sa.Column(
            "first_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("agent", "model"),
    )


def downgrade() -> None:
    op.drop_table("usage_totals")
    op.drop_table("model_calls")
    op.drop_column("tasks", "budget")
