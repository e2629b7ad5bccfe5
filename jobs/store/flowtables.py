"""The tables of pipelines."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Column, Index, UniqueConstraint
from sqlmodel import Field, SQLModel


class PipelineRow(SQLModel, table=True):
    """One run of a pipeline."""

    __tablename__ = "pipelines"
    __table_args__ = (UniqueConstraint("uid", "key", name="uq_pipelines_uid_key"),)

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(index=True)
    user: str
    uid: int
    role: int = 2  # with which its steps act, see `jobs.access.roles`
    key: str | None = None  # the submitter's idempotency key
    spec: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    params: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))  # the values of this run
    code: dict[str, Any] = Field(
        sa_column=Column(JSON, nullable=False)
    )  # step -> {"snapshot", "git"}
    fresh: list[str] = Field(sa_column=Column(JSON, nullable=False))  # steps that are not cached
    state: str = Field(index=True)
    reason: str = ""
    ending: str | None = None  # what STOPPING leads to
    steered: int = 0  # counts what people have changed
    submitted_at: float
    started_at: float  # or when it was last retried
    ended_at: float | None = None


class PipelineTaskRow(SQLModel, table=True):
    """One run of a step: several with a matrix."""

    __tablename__ = "pipeline_tasks"
    __table_args__ = (Index("ix_pipeline_tasks_state", "pipeline_id", "state"),)

    pipeline_id: int = Field(foreign_key="pipelines.id", primary_key=True)
    step: str = Field(primary_key=True)
    number: int = Field(primary_key=True)
    state: str
    reason: str = ""
    tries: int = 0
    left_out: bool = False  # by --from or --only
    job_id: int | None = Field(default=None, foreign_key="jobs.id", index=True)
    sweep_id: int | None = Field(default=None, foreign_key="sweeps.id", index=True)
    fingerprint: str | None = Field(default=None, index=True)
    result: dict[str, Any] | None = (
        Field(  # of steps that are no jobs: what was asked, what is left
            default=None, sa_column=Column(JSON(none_as_null=True))
        )
    )
    taken_from: int | None = None  # the pipeline in which its job ran, if not in this one
    started_at: float | None = None
    ended_at: float | None = None


class ScheduleRow(SQLModel, table=True):
    """A pipeline that runs by itself."""

    __tablename__ = "schedules"

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True)
    user: str
    uid: int
    role: int = 2
    schedule: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    spec: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))  # of its pipeline
    params: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    code: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    paused: bool = False
    added_at: float  # from which `every` counts
    seen: float  # up to where moments have been looked at; of data, up to which version


class FiringRow(SQLModel, table=True):
    """One moment of a schedule, and what came of it: each moment is here once."""

    __tablename__ = "schedule_firings"
    __table_args__ = (
        Index("ix_schedule_firings_state", "schedule_id", "state"),
        Index("ix_schedule_firings_cause", "schedule_id", "cause", unique=True),
    )

    schedule_id: int = Field(foreign_key="schedules.id", primary_key=True)
    moment: float = Field(primary_key=True)
    state: str  # WAITING, STARTED, SKIPPED or MISSED
    reason: str = ""
    pipeline_id: int | None = Field(default=None, foreign_key="pipelines.id", index=True)
    at: float  # when it was decided
    cause: str | None = None  # of a trigger: what has happened, by a name of its own
    value: str | None = None  # and what its pipeline is told of it
