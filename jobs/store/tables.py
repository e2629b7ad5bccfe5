"""The registry's tables (SQLModel). Rows are for storage; what the API says is in `jobs/wire/views.py`.

Times are seconds since the epoch (UTC) as floats: exact enough, the same on SQLite and PostgreSQL,
and free of time-zone surprises. JSON columns hold what is never queried by. Change a table only
together with a migration in `jobs/store/migrations/versions/`.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Index, Integer, LargeBinary, UniqueConstraint
from sqlmodel import Field, SQLModel

from jobs.store.columns import WithNumbers

# SQLite only makes a rowid alias (and so an auto-increment) of a column typed INTEGER.
_BigId = BigInteger().with_variant(Integer(), "sqlite")


class MetaRow(SQLModel, table=True):
    """Facts of this registry: cluster id, revision counter."""

    __tablename__ = "meta"

    name: str = Field(primary_key=True)
    value: str


class JobRow(SQLModel, table=True):
    __tablename__ = "jobs"
    __table_args__ = (
        UniqueConstraint("uid", "key", name="uq_jobs_uid_key"),
        Index("ix_jobs_state_id", "state", "id"),
    )

    id: int | None = Field(default=None, primary_key=True)
    name: str
    user: str = Field(index=True)
    uid: int
    key: str | None = None  # the submitter's idempotency key
    kind: str
    state: str
    reason: str = ""
    intent: str = "run"  # "run" or "cancel"
    priority: int
    nodes: int
    ranks: int
    gpus: float
    cpus: float
    spec: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    tags: dict[str, str] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    snapshot: str | None = None
    image: str = ""  # digest of the container image that it runs in
    git: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True)))
    submitted_at: float
    started_at: float | None = None
    ended_at: float | None = None
    not_before: float = 0.0
    attempts: int = 0
    restarts_left: int = 0
    losses: int = 0
    exit_code: int | None = None
    placed_on: list[str] = Field(default_factory=list, sa_column=Column(JSON, nullable=False))
    objective: dict[str, Any] | None = Field(default=None, sa_column=Column(WithNumbers))
    revision: int = 0
    token: str = ""  # part of its name on nodes' disks (`jobs.base.names.AttemptKey`)


class AttemptRow(SQLModel, table=True):
    """One run of a gang. Its id is the epoch: unique, and growing for as long as the registry lives."""

    __tablename__ = "attempts"
    __table_args__ = (
        UniqueConstraint("job_id", "number", name="uq_attempts_job_number"),
        Index("ix_attempts_state_ended", "state", "ended_at"),
        {"sqlite_autoincrement": True},  # an epoch is never used twice
    )

    id: int | None = Field(default=None, primary_key=True)
    job_id: int = Field(foreign_key="jobs.id", index=True)
    number: int
    state: str
    ending: str = ""
    reason: str = ""
    failure: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON))
    master_port: int | None = None
    released: bool = False
    placed_at: float
    started_at: float | None = None
    ended_at: float | None = None
    identity: str = ""  # as `JobRow.token`
    waits: bool = False  # no lease ends it


class AllocationRow(SQLModel, table=True):
    """One node's share of an attempt."""

    __tablename__ = "parts"

    attempt_id: int = Field(foreign_key="attempts.id", primary_key=True)
    node_rank: int = Field(primary_key=True)
    node: str = Field(index=True)
    phase: str
    outcome: str = ""
    boot: str = ""  # that it was staged in (`jobs.life.boots`)
    left_files: int = 0  # written below its work folder, and no output
    left_bytes: int = Field(default=0, sa_type=BigInteger)


class RankRow(SQLModel, table=True):
    __tablename__ = "ranks"

    attempt_id: int = Field(foreign_key="attempts.id", primary_key=True)
    rank: int = Field(primary_key=True)
    node: str
    local_rank: int
    pid: int | None = None
    gpus: list[str] = Field(default_factory=list, sa_column=Column(JSON, nullable=False))
    state: str = "PENDING"
    exit_code: int | None = None
    signal: int | None = None
    metric_offset: int = Field(default=0, sa_type=BigInteger)  # bytes of its metrics file ingested


class EventRow(SQLModel, table=True):
    __tablename__ = "events"

    id: int | None = Field(
        default=None, sa_column=Column(_BigId, primary_key=True, autoincrement=True)
    )
    at: float
    kind: str
    severity: str
    job_id: int | None = Field(default=None, index=True)
    node: str | None = None
    user: str | None = None
    message: str


class AuditRow(SQLModel, table=True):
    """Append-only; each row's hash covers the one before (see `jobs/store/audit.py`)."""

    __tablename__ = "audit"

    id: int | None = Field(default=None, primary_key=True)
    at: float
    user: str
    uid: int
    action: str
    target: str
    data: str  # canonical JSON: what was hashed is what is stored
    previous: str
    hash: str


class MetricChunkRow(SQLModel, table=True):
    """Points of one rank that were stored together, by column (see `jobs/store/metricpoints.py`)."""

    __tablename__ = "metric_chunks"
    __table_args__ = (Index("ix_metric_chunks_rank", "attempt_id", "rank"),)

    id: int | None = Field(
        default=None, sa_column=Column(_BigId, primary_key=True, autoincrement=True)
    )
    attempt_id: int = Field(foreign_key="attempts.id")
    rank: int
    names: list[str] = Field(sa_column=Column(JSON, nullable=False))
    data: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class MetricLatestRow(SQLModel, table=True):
    """The newest value of each metric, so that lists need not search the points."""

    __tablename__ = "metric_latest"

    attempt_id: int = Field(foreign_key="attempts.id", primary_key=True)
    name: str = Field(primary_key=True)
    rank: int = Field(primary_key=True)
    step: int = Field(sa_type=BigInteger)
    at: float
    value: float | None


class RunFactRow(SQLModel, table=True):
    """A parameter or tag that a job's program logged (see `jobs/store/runfacts.py`)."""

    __tablename__ = "run_facts"

    job_id: int = Field(foreign_key="jobs.id", primary_key=True)
    kind: str = Field(primary_key=True)  # "param" or "tag"
    name: str = Field(primary_key=True)
    rank: int
    value: str
    number: float | None = None  # what the value is as one


class NodeRow(SQLModel, table=True):
    __tablename__ = "nodes"

    name: str = Field(primary_key=True)
    address: str
    drained: bool = False
    reason: str = ""
    quarantine: str = ""  # why it is quarantined, empty when it is not
    acknowledged: dict[str, Any] | None = Field(default=None, sa_column=Column("pardon", JSON))
    facts: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    boot_id: str = ""
    first_seen: float
    seen_at: float


class SnapshotRow(SQLModel, table=True):
    __tablename__ = "snapshots"

    digest: str = Field(primary_key=True)
    files: int
    size: int = Field(sa_type=BigInteger)
    created_at: float


class ArtifactRow(SQLModel, table=True):
    __tablename__ = "artifacts"

    attempt_id: int = Field(foreign_key="attempts.id", primary_key=True)
    name: str = Field(primary_key=True)
    job_id: int = Field(foreign_key="jobs.id", index=True)
    path: str
    digest: str
    size: int = Field(sa_type=BigInteger)
    kind: str = "file"  # or "folder": the digest is that of a manifest
    files: int = 1
    data: str | None = None  # the version of a data set that it became
