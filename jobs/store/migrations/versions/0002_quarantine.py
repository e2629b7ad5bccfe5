"""quarantine of nodes"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("nodes", schema=None) as batch_op:
        batch_op.add_column(sa.Column("quarantine", sa.String(), nullable=False, server_default=""))
        batch_op.add_column(sa.Column("pardon", sa.JSON(), nullable=True))
    op.create_index("ix_attempts_state_ended", "attempts", ["state", "ended_at"])


def downgrade() -> None:
    op.drop_index("ix_attempts_state_ended", table_name="attempts")
    with op.batch_alter_table("nodes", schema=None) as batch_op:
        batch_op.drop_column("pardon")
        batch_op.drop_column("quarantine")
