"""The tables of data sets. A version never changes once it is there."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Column, UniqueConstraint
from sqlmodel import Field, SQLModel


class DataVersionRow(SQLModel, table=True):
    __tablename__ = "data_versions"
    __table_args__ = (
        UniqueConstraint("name", "number", name="uq_data_versions_number"),
        UniqueConstraint("name", "digest", name="uq_data_versions_digest"),
    )

    id: int | None = Field(default=None, primary_key=True)
    name: str
    number: int
    digest: str  # of the manifest, "sha256:..."
    files: int
    size: int = Field(sa_type=BigInteger)  # bytes
    file: str | None = None  # the one file that it was added from; None for a folder
    source: str = ""  # host and path that it was added from
    note: str = ""
    user: str
    uid: int
    created_at: float
    profile: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON))
    lineage: dict[str, Any] | None = Field(
        default=None, sa_column=Column(JSON(none_as_null=True))
    )  # of what a job made: its run, its data, its features
