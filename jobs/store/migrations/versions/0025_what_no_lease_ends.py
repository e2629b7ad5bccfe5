"""attempts that no lease ends, and the boot that a part was staged in"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "attempts", sa.Column("waits", sa.Boolean(), nullable=False, server_default=sa.false())
    )
    op.add_column("parts", sa.Column("boot", sa.String(), nullable=False, server_default=""))


def downgrade() -> None:
    op.drop_column("attempts", "waits")
    op.drop_column("parts", "boot")
