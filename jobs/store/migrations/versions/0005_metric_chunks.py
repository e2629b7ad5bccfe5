"""metric points are kept by the chunk, column by column"""

from __future__ import annotations

from itertools import groupby

import sqlalchemy as sa
from alembic import op

from jobs.metrics.points import Point, Points, pack

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_TOGETHER = 10_000
"""Points of a chunk at most."""


def upgrade() -> None:
    chunks = op.create_table(
        "metric_chunks",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("attempt_id", sa.Integer(), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("names", sa.JSON(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempts.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_metric_chunks_rank", "metric_chunks", ["attempt_id", "rank"])
    connection = op.get_bind()
    rows = connection.execute(
        sa.text(
            "SELECT attempt_id, rank, name, step, at, value FROM metric_points"
            " ORDER BY attempt_id, rank, id"
        )
    )
    for (epoch, rank), group in groupby(rows, key=lambda row: (row.attempt_id, row.rank)):
        points = [Point(row.name, row.step, row.at, row.value) for row in group]
        for first in range(0, len(points), _TOGETHER):
            packed = pack(points[first : first + _TOGETHER])
            connection.execute(
                chunks.insert(),
                {
                    "attempt_id": epoch,
                    "rank": rank,
                    "names": packed.names,
                    "data": packed.to_bytes(),
                },
            )
    op.drop_table("metric_points")


def downgrade() -> None:
    points = op.create_table(
        "metric_points",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("attempt_id", sa.Integer(), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("value", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempts.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "ix_metric_points_series", "metric_points", ["attempt_id", "name", "rank", "step"]
    )
    connection = op.get_bind()
    chunks = sa.table(
        "metric_chunks",
        sa.column("id", sa.BigInteger()),
        sa.column("attempt_id", sa.Integer()),
        sa.column("rank", sa.Integer()),
        sa.column("names", sa.JSON()),
        sa.column("data", sa.LargeBinary()),
    )
    for row in connection.execute(sa.select(chunks).order_by(chunks.c.id)):
        found = Points.from_bytes(row.names, row.data)
        connection.execute(
            points.insert(),
            [
                {
                    "attempt_id": row.attempt_id,
                    "rank": row.rank,
                    "name": point.name,
                    "step": point.step,
                    "at": point.at,
                    "value": point.value,
                }
                for point in found
            ],
        )
    op.drop_table("metric_chunks")
