"""The tables of sweeps, beside those that Optuna keeps of its own (`studies`, `trials`, ...).

A trial has the same number here and in its Optuna study. It is over here only after Optuna has been
told, so what is open here is all that can differ after a crash.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Column, Index, UniqueConstraint
from sqlmodel import Field, SQLModel

from jobs.store.columns import WithNumbers


class SweepRow(SQLModel, table=True):
    __tablename__ = "sweeps"
    __table_args__ = (UniqueConstraint("uid", "key", name="uq_sweeps_uid_key"),)

    id: int | None = Field(default=None, primary_key=True)
    name: str
    user: str
    uid: int
    key: str | None = None  # the submitter's idempotency key
    spec: dict[str, Any] = Field(
        sa_column=Column(JSON, nullable=False)
    )  # with what steering changed
    snapshot: str | None = None
    git: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON))
    state: str = Field(index=True)
    reason: str = ""
    ending: str | None = None  # what STOPPING leads to
    submitted_at: float
    ended_at: float | None = None
    paused_at: float | None = None
    paused_for: float = 0.0


class SweepTrialRow(SQLModel, table=True):
    __tablename__ = "sweep_trials"
    __table_args__ = (Index("ix_sweep_trials_state", "sweep_id", "state"),)

    sweep_id: int = Field(foreign_key="sweeps.id", primary_key=True)
    number: int = Field(primary_key=True)
    params: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    state: str
    reason: str = ""
    wish: str = ""  # "prune" or "stop": why its job is being stopped
    job_id: int = Field(foreign_key="jobs.id", index=True)
    losses: int = 0
    silent: bool = False  # it succeeded without logging its objective
    values: list[float] | None = Field(default=None, sa_column=Column(WithNumbers))
    value: float | None = None  # the first of them, to sort by
    asked_at: float
    started_at: float | None = None
    ended_at: float | None = None
    gpu_seconds: float = 0.0  # of the jobs that are over
    origin: str = "drawn"  # see `jobs.wire.sweepviews.Origin`
    parent: int | None = None  # the trial whose checkpoint it began with, or that it runs again
    member: int | None = None  # of a population: which of its members, and its how manieth turn
    generation: int | None = None
    checkpoint: str | None = None  # what it left for others to begin with, "sha256:..."
    constraints: dict[str, float] | None = Field(default=None, sa_column=Column(JSON))
    feasible: bool | None = None  # whether it meets all constraints; None without any, or before
    pinned: bool = False  # the pruner leaves it alone
