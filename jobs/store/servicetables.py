"""The tables of services: what is deployed, its releases, the jobs that are their replicas, and keys."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Column, UniqueConstraint
from sqlmodel import Field, SQLModel


class DeploymentRow(SQLModel, table=True):
    """A name at a target. `state` is what `jobs.services.stored` writes of the rollout's machine."""

    __tablename__ = "deployments"
    __table_args__ = (UniqueConstraint("name", "target", name="uq_deployments_name_target"),)

    id: int | None = Field(default=None, primary_key=True)
    name: str
    target: str
    user: str  # who deployed it last: its replicas run as theirs
    uid: int
    bind: str
    port: int
    keyed: bool = False  # whether its requests need an API key
    tls: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON, nullable=True))
    state: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    counted: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    created_at: float
    changed_at: float


class ReleaseRow(SQLModel, table=True):
    """What was deployed, as it was asked for."""

    __tablename__ = "releases"

    deployment_id: int = Field(foreign_key="deployments.id", primary_key=True)
    number: int = Field(primary_key=True)
    version: str
    spec: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    snapshot: str | None = None
    digest: str | None = None  # of the model version, where it is one
    user: str
    created_at: float


class ReplicaRow(SQLModel, table=True):
    """The job that is a replica now. A job that has ended for good is replaced by another."""

    __tablename__ = "replicas"

    deployment_id: int = Field(foreign_key="deployments.id", primary_key=True)
    release: int = Field(primary_key=True)
    slot: int = Field(primary_key=True)
    job_id: int = Field(foreign_key="jobs.id", index=True)
    replaced: int = 0  # how many jobs came before it


class ServiceKeyRow(SQLModel, table=True):
    """An API key of a service. Of the key itself there is only the digest."""

    __tablename__ = "service_keys"

    id: int | None = Field(default=None, primary_key=True)
    deployment_id: int = Field(foreign_key="deployments.id", index=True)
    name: str
    digest: str
    rate: str | None = None  # as `jobs.services.keys.Rate` reads it
    user: str
    created_at: float
    revoked_at: float | None = None
