"""outputs that are folders, and what attempts leave on their nodes"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("artifacts") as table:
        table.add_column(sa.Column("kind", sa.String(), nullable=False, server_default="file"))
        table.add_column(sa.Column("files", sa.Integer(), nullable=False, server_default="1"))
    op.execute("UPDATE artifacts SET kind = 'folder' WHERE name = 'checkpoint' AND path = ''")
    with op.batch_alter_table("parts") as table:
        table.add_column(sa.Column("left_files", sa.Integer(), nullable=False, server_default="0"))
        table.add_column(
            sa.Column("left_bytes", sa.BigInteger(), nullable=False, server_default="0")
        )


def downgrade() -> None:
    with op.batch_alter_table("parts") as table:
        table.drop_column("left_bytes")
        table.drop_column("left_files")
    with op.batch_alter_table("artifacts") as table:
        table.drop_column("files")
        table.drop_column("kind")
