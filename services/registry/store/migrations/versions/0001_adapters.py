"""Adapters and their history."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create both tables."""
    op.create_table(
        "adapters",
        sa.Column("id", sa.String(255), primary_key=True),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("run", sa.String(64), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("deployment", sa.String(64), nullable=False),
        sa.Column("base_label", sa.String(160), nullable=False),
        sa.Column("task", sa.String(64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("base", sa.String(71), nullable=False),
        sa.Column("tokenizer", sa.String(71), nullable=False),
        sa.Column("weights", sa.String(71), nullable=False),
        sa.Column("adapter", sa.String(71), nullable=False),
        sa.Column("card", sa.String(71), nullable=False),
        sa.Column("bundle", sa.String(71), nullable=True),
        sa.Column("rollback", sa.String(255), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.UniqueConstraint("tenant", "run", "attempt", "adapter", name="uq_adapters_candidate"),
        sa.UniqueConstraint("base_label", "task", "version", name="uq_adapters_version"),
    )
    op.create_index("ix_adapters_deployment", "adapters", ["tenant", "deployment", "status"])
    op.create_table(
        "history",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("adapter_id", sa.String(255), sa.ForeignKey("adapters.id"), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("what", sa.String(16), nullable=False),
        sa.Column("who", sa.String(255), nullable=False),
        sa.Column("why", sa.String(4000), nullable=False),
        sa.Column("cause", sa.String(255), nullable=False),
        sa.UniqueConstraint("adapter_id", "what", "cause", name="uq_history_once"),
    )
    op.create_index("ix_history_adapter_id", "history", ["adapter_id"])


def downgrade() -> None:
    """Drop both tables."""
    op.drop_table("history")
    op.drop_table("adapters")
