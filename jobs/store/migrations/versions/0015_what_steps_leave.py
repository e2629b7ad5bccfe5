"""what steps of pipelines leave, and the role with which a pipeline acts"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("pipeline_tasks", sa.Column("result", sa.JSON(), nullable=True))
    for table in ("pipelines", "schedules"):
        # An operator's: whoever has started one that is there already was at least that.
        column = sa.Column("role", sa.Integer(), nullable=False, server_default="2")
        op.add_column(table, column)


def downgrade() -> None:
    for table in ("schedules", "pipelines"):
        op.drop_column(table, "role")
    op.drop_column("pipeline_tasks", "result")
