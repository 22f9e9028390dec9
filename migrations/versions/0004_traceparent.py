"""The span that sent a task, kept for whoever publishes it again.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("tasks", sa.Column("traceparent", sa.Text()))


def downgrade() -> None:
    op.drop_column("tasks", "traceparent")
