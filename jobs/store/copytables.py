"""The table of copied checkpoints."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, Integer
from sqlmodel import Field, SQLModel

_BigId = BigInteger().with_variant(Integer(), "sqlite")


class CopyRow(SQLModel, table=True):
    """A checkpoint of a job as the head has it. `sources`: node -> unix time of the newest file from it."""

    __tablename__ = "checkpoint_copies"

    id: int | None = Field(
        default=None, sa_column=Column(_BigId, primary_key=True, autoincrement=True)
    )
    job_id: int = Field(foreign_key="jobs.id", index=True)
    attempt_id: int = Field(foreign_key="attempts.id")
    digest: str  # of the manifest, "sha256:..."
    names: list[str] = Field(sa_column=Column(JSON, nullable=False))
    step: int | None = Field(default=None, sa_type=BigInteger)
    at: float  # unix time of its newest file
    copied_at: float
    seconds: float  # that it took
    files: int
    size: int = Field(sa_type=BigInteger)
    sent: int = Field(sa_type=BigInteger)  # bytes that were not here before
    sources: dict[str, float] = Field(sa_column=Column(JSON, nullable=False))
