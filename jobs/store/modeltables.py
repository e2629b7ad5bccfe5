"""The tables of models: versions never change once they are there; what is said of them is added.

Files of a version are in the store of blobs: `digest` is that of their manifest, as with snapshots.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Index, Text, UniqueConstraint
from sqlmodel import Field, SQLModel


class ModelRow(SQLModel, table=True):
    __tablename__ = "models"

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True)
    policy: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    versions: int = 0  # how many there were ever: a number is never used twice
    user: str
    uid: int
    created_at: float


class ModelVersionRow(SQLModel, table=True):
    __tablename__ = "model_versions"
    __table_args__ = (
        UniqueConstraint("model_id", "number", name="uq_model_versions_number"),
        UniqueConstraint("model_id", "digest", name="uq_model_versions_digest"),
        UniqueConstraint("model_id", "label", name="uq_model_versions_label"),
    )

    id: int | None = Field(default=None, primary_key=True)
    model_id: int = Field(foreign_key="models.id", index=True)
    number: int
    label: str | None = None
    digest: str
    files: int
    size: int = Field(sa_type=BigInteger)
    format: str
    main: str | None = None  # the file to load
    pickles: list[list[str]] = Field(default_factory=list, sa_column=Column(JSON, nullable=False))
    signature: dict[str, Any] | None = Field(
        default=None, sa_column=Column(JSON(none_as_null=True))
    )
    metrics: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    lineage: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    job_id: int | None = Field(default=None, foreign_key="jobs.id", index=True)
    author: int | None = None  # uid of who ran its job
    user: str
    uid: int
    created_at: float
    archived_at: float | None = None


class ModelTagRow(SQLModel, table=True):
    __tablename__ = "model_tags"
    __table_args__ = (Index("ix_model_tags_key", "key"),)

    version_id: int = Field(foreign_key="model_versions.id", primary_key=True)
    key: str = Field(primary_key=True)
    value: str = Field(sa_column=Column(Text, nullable=False))


class ModelAliasRow(SQLModel, table=True):
    __tablename__ = "model_aliases"

    model_id: int = Field(foreign_key="models.id", primary_key=True)
    alias: str = Field(primary_key=True)
    version_id: int = Field(foreign_key="model_versions.id", index=True)
    user: str
    uid: int
    set_at: float


class GateRow(SQLModel, table=True):
    """What a gate came to. `evidence` is the document, `evidence_digest` its digest when it was stored."""

    __tablename__ = "model_gates"

    id: int | None = Field(default=None, primary_key=True)
    version_id: int = Field(foreign_key="model_versions.id", index=True)
    digest: str  # of the version
    gate: str  # digest of what was asked
    passed: bool
    evidence_digest: str
    evidence: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    user: str
    uid: int
    at: float


class ApprovalRow(SQLModel, table=True):
    __tablename__ = "model_approvals"

    id: int | None = Field(default=None, primary_key=True)
    version_id: int = Field(foreign_key="model_versions.id", index=True)
    decision: str  # "approve" or "reject"
    digest: str  # of the version
    evidence_digest: str | None = None  # of the gate's result that was shown
    comment: str = Field(sa_column=Column(Text, nullable=False))
    signature: str | None = Field(default=None, sa_column=Column(Text))  # SSHSIG, armoured
    user: str
    uid: int
    at: float
    expires_at: float | None = None
    revoked_at: float | None = None
    revoked_by: str | None = None
    revoked_why: str | None = Field(default=None, sa_column=Column(Text))
