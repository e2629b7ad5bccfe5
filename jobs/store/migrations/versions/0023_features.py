"""versions of features, and what a version of a data set was made from"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "feature_versions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("files", sa.Integer(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("declaration", sa.JSON(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("note", sa.String(), nullable=False),
        sa.Column("user", sa.String(), nullable=False),
        sa.Column("uid", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name", "digest", name="uq_feature_versions_digest"),
        sa.UniqueConstraint("name", "number", name="uq_feature_versions_number"),
    )
    op.add_column("artifacts", sa.Column("data", sa.String(), nullable=True))
    op.add_column("data_versions", sa.Column("lineage", sa.JSON(), nullable=True))


def downgrade() -> None:
    op.drop_column("data_versions", "lineage")
    op.drop_column("artifacts", "data")
    op.drop_table("feature_versions")
