"""What the API and `qd` say of a backup."""

from __future__ import annotations

from typing_extensions import TypedDict


class AuditHead(TypedDict):
    """A row of the audit log, the newest one at some time."""

    id: int
    hash: str


class BackupView(TypedDict):
    """A manifest with its files counted. `schema` is the revision of the registry's tables."""

    path: str
    version: int
    cluster: str
    quarterdeck: str
    schema: str
    database: str  # "sqlite" or "postgresql"
    made_at: str
    secrets: bool
    audit: AuditHead | None
    files: int
    bytes: int


class BackupLine(TypedDict):
    """What is done now, in words; the last line has the backup instead."""

    doing: str
    backup: BackupView | None


class RestoreView(BackupView):
    """`before` is the folder of what was there; `restored` is false when the backup was only checked."""

    restored: bool
    before: str | None


class MovedView(TypedDict):
    """A registry that was written to a file (`path`), or read from it."""

    path: str
    cluster: str
    schema: str
    audit: AuditHead | None
    tables: int
    rows: int
    bytes: int
