"""what names a job and an attempt on nodes' disks, beside numbers that a restored registry repeats"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Not in batch mode: SQLite would make the tables anew, and forget which epochs were given.
    for table, column in (("jobs", "token"), ("attempts", "identity")):
        op.add_column(table, sa.Column(column, sa.String(), nullable=False, server_default=""))


def downgrade() -> None:
    op.drop_column("attempts", "identity")
    op.drop_column("jobs", "token")
