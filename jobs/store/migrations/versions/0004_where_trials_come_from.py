"""where trials come from, what they left, and whether they meet the sweep's constraints"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("sweep_trials") as table:
        table.add_column(
            sa.Column("origin", sa.String(), nullable=False, server_default="drawn"),
        )
        table.add_column(sa.Column("parent", sa.Integer(), nullable=True))
        table.add_column(sa.Column("member", sa.Integer(), nullable=True))
        table.add_column(sa.Column("generation", sa.Integer(), nullable=True))
        table.add_column(sa.Column("checkpoint", sa.String(), nullable=True))
        table.add_column(sa.Column("constraints", sa.JSON(), nullable=True))
        table.add_column(sa.Column("feasible", sa.Boolean(), nullable=True))
        table.add_column(
            sa.Column("pinned", sa.Boolean(), nullable=False, server_default=sa.false()),
        )


def downgrade() -> None:
    with op.batch_alter_table("sweep_trials") as table:
        for name in (
            "pinned",
            "feasible",
            "constraints",
            "checkpoint",
            "generation",
            "member",
            "parent",
            "origin",
        ):
            table.drop_column(name)
