"""The table of pushes: which version went, or goes, to which fleet of hosts."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Column
from sqlmodel import Field, SQLModel


class EdgePushRow(SQLModel, table=True):
    """A version for a fleet, as `jobs.edge.push` writes it. The newest is what the fleet is to have."""

    __tablename__ = "edge_pushes"

    id: int | None = Field(default=None, primary_key=True)
    fleet: str = Field(index=True)
    model: str
    version: str  # digits:3
    digest: str
    spec: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    state: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    user: str
    uid: int
    created_at: float
    changed_at: float
