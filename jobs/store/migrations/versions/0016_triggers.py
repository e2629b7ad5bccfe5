"""what fired a schedule that is no moment of a clock"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("schedule_firings", sa.Column("cause", sa.String(), nullable=True))
    op.add_column("schedule_firings", sa.Column("value", sa.String(), nullable=True))
    op.create_index(
        "ix_schedule_firings_cause", "schedule_firings", ["schedule_id", "cause"], unique=True
    )


def downgrade() -> None:
    op.drop_index("ix_schedule_firings_cause", "schedule_firings")
    op.drop_column("schedule_firings", "value")
    op.drop_column("schedule_firings", "cause")
