"""what was said when an alert was acknowledged"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("alerts", sa.Column("acked_why", sa.String(), nullable=False, server_default=""))


def downgrade() -> None:
    op.drop_column("alerts", "acked_why")
