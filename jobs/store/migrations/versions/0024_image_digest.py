"""which container image a job runs in"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("image", sa.String(), nullable=False, server_default=""))


def downgrade() -> None:
    op.drop_column("jobs", "image")
