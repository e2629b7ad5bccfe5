"""The tables of evaluations: what was asked, and the evidence that came of it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Column
from sqlmodel import Field, SQLModel


class EvaluationRow(SQLModel, table=True):
    """A version that is measured on a version of a data set, by a job. `state` is RUNNING, DONE or FAILED;
    `document` is the evidence and `evidence` its digest when it was stored, which never change."""

    __tablename__ = "evaluations"

    id: int | None = Field(default=None, primary_key=True)
    version_id: int = Field(foreign_key="model_versions.id", index=True)
    digest: str  # of the version
    data: str  # digits-test@2
    data_digest: str
    asked: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    job_id: int = Field(foreign_key="jobs.id", index=True)
    state: str = Field(index=True)
    reason: str = ""
    evidence: str | None = None
    document: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True)))
    user: str
    uid: int
    created_at: float
    ended_at: float | None = None


class EvaluationSampleRow(SQLModel, table=True):
    """A metric in each of the resamples, which is what differences of versions are made of."""

    __tablename__ = "evaluation_samples"

    evaluation_id: int = Field(foreign_key="evaluations.id", primary_key=True)
    metric: str = Field(primary_key=True)
    samples: list[float | None] = Field(sa_column=Column(JSON, nullable=False))
