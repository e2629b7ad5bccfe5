"""The tables of alerts, and of the notes about them that are to be delivered."""

from __future__ import annotations

from sqlalchemy import Index
from sqlmodel import Field, SQLModel


class AlertRow(SQLModel, table=True):
    """One rule about one thing, as it is or was last."""

    __tablename__ = "alerts"

    rule: str = Field(primary_key=True)
    subject: str = Field(primary_key=True)
    state: str = Field(index=True)  # PENDING, FIRING or RESOLVED
    severity: str
    text: str
    node: str = ""
    since: float
    seen: float
    until: float | None = None
    told: float | None = None
    acked_by: str = ""
    acked_why: str = ""
    changed_at: float


class AlertNoteRow(SQLModel, table=True):
    """A note to a channel: written with the change that it tells of, marked when it was delivered."""

    __tablename__ = "alert_notes"
    __table_args__ = (Index("ix_alert_notes_sent_at", "sent_at", "channel"),)

    id: int | None = Field(default=None, primary_key=True)
    channel: str
    text: str
    severity: str
    at: float
    sent_at: float | None = None


class SilenceRow(SQLModel, table=True):
    __tablename__ = "alert_silences"

    id: int | None = Field(default=None, primary_key=True)
    rule: str  # patterns, as of a shell
    subject: str
    until: float
    user: str
    reason: str
    made_at: float
