"""The table of features. A version never changes once it is there."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Column, UniqueConstraint
from sqlmodel import Field, SQLModel


class FeatureVersionRow(SQLModel, table=True):
    __tablename__ = "feature_versions"
    __table_args__ = (
        UniqueConstraint("name", "number", name="uq_feature_versions_number"),
        UniqueConstraint("name", "digest", name="uq_feature_versions_digest"),
    )

    id: int | None = Field(default=None, primary_key=True)
    name: str
    number: int
    digest: str  # of the manifest, "sha256:..."
    files: int
    size: int = Field(sa_type=BigInteger)  # bytes
    declaration: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    source: str = ""  # host and path that it was added from
    note: str = ""
    user: str
    uid: int
    created_at: float
