"""The tables of monitors: what is known of each version that serves, and the windows that were looked at,
and the truth of requests where it came."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Column
from sqlmodel import Field, SQLModel


class MonitorRow(SQLModel, table=True):
    """A version at a deployment. `reference` is the digest of its reference window, lines of the log."""

    __tablename__ = "monitors"

    deployment_id: int = Field(foreign_key="deployments.id", primary_key=True)
    version: str = Field(primary_key=True)
    reference: str | None = None
    reference_rows: int = 0
    reference_at: float | None = None
    judged: float
    looked: float
    drifting: bool = False
    windows: int = 0
    clean: int = 0


class MonitorRunRow(SQLModel, table=True):
    """A window that was looked at. `state` is RUNNING, DONE or FAILED; `status` is what it came to."""

    __tablename__ = "monitor_runs"

    id: int | None = Field(default=None, primary_key=True)
    deployment_id: int = Field(foreign_key="deployments.id", index=True)
    version: str
    since: float
    until: float
    scheduled: bool
    user: str
    requests: int
    job_id: int | None = Field(default=None, foreign_key="jobs.id", index=True)
    state: str = Field(index=True)
    status: str = ""
    reason: str = ""
    report: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    created_at: float
    ended_at: float | None = None


class FeedbackRow(SQLModel, table=True):
    """A request whose truth is known: of `rows` answers so many are `correct`, or their absolute errors sum
    up to `error`, and the squares of those to `squares`. `at`: when it was answered, unix time."""

    __tablename__ = "feedback"

    deployment_id: int = Field(foreign_key="deployments.id", primary_key=True)
    request: str = Field(primary_key=True)
    version: str
    at: float
    rows: int
    correct: int | None = None
    error: float | None = None
    squares: float | None = None
