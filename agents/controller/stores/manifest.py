"""What a backup says of itself: `manifest.json`, with the size and the digest of each of its files."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any, NotRequired

from sqlmodel import Session
from typing_extensions import TypedDict

from jobs.base.errors import Conflict, InvalidInput, NotFound
from jobs.store import audit, migrations
from jobs.store.tables import MetaRow
from jobs.wire.backupviews import AuditHead, BackupView

FILE = "manifest.json"
VERSION = 1
REGISTRY, DUMP = "registry.db", "registry.pgdump"
_CHUNK = 1 << 20
_ROOMS = frozenset({"blobs", "logs", "secrets"})
_SINGLE = frozenset(
    {REGISTRY, DUMP, "audit-heads.jsonl", "audit-key", "allowed_signers", "ray-token"}
)

Say = Callable[[str], None]


class FileEntry(TypedDict):
    sha256: str
    size: int


class Manifest(TypedDict):
    """`schema` is the revision of the registry's tables, `audit` the newest row of the audit log."""

    version: int
    cluster: str
    quarterdeck: str
    schema: str
    database: str
    made_at: str
    secrets: bool
    audit: AuditHead | None
    files: dict[str, FileEntry]
    blobs: NotRequired[str]  # where they are, when they are not in the backup


def summary(folder: Path, found: Manifest) -> BackupView:
    """What a manifest says, with its files counted."""
    sizes = [entry["size"] for entry in found["files"].values()]
    return {
        "path": str(folder),
        "version": found["version"],
        "cluster": found["cluster"],
        "quarterdeck": found["quarterdeck"],
        "schema": found["schema"],
        "database": found["database"],
        "made_at": found["made_at"],
        "secrets": found["secrets"],
        "audit": found["audit"],
        "files": len(sizes),
        "bytes": sum(sizes),
    }


def of_registry(session: Session) -> tuple[str, str, AuditHead | None]:
    """The cluster's id, the schema's revision and the newest row of the audit log."""
    cluster = session.get(MetaRow, "cluster_id")
    head = audit.head(session)
    return (
        cluster.value if cluster is not None else "",
        migrations.current(session.connection()) or "",
        None if head is None else {"id": head[0], "hash": head[1]},
    )


def entry_of(path: Path) -> FileEntry:
    """Read a file, and say what it holds."""
    hasher, size = sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            hasher.update(chunk)
            size += len(chunk)
    return {"sha256": hasher.hexdigest(), "size": size}


def read(backup: Path) -> Manifest:
    """Raises NotFound without one, InvalidInput when it is damaged, Conflict when it is too new."""
    try:
        value: Any = json.loads((backup / FILE).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"{backup} is not a backup: it has no {FILE}") from None
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{backup / FILE} cannot be read: {error}") from None
    if isinstance(value, dict) and isinstance(value.get("version"), int):
        if value["version"] > VERSION:
            raise Conflict(
                f"{backup} was made by a newer Quarterdeck, {value.get('quarterdeck')}",
                "Upgrade this one first.",
            )
        try:
            _check(value)
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInput(f"{backup / FILE} is damaged: {error}") from None
        found: Any = value
        manifest: Manifest = found
        return manifest
    raise InvalidInput(f"{backup / FILE} is not a backup's manifest")


def _check(value: dict[str, Any]) -> None:
    for name in ("cluster", "quarterdeck", "schema", "database", "made_at"):
        if not isinstance(value[name], str):
            raise TypeError(name)
    head = value["audit"]
    if head is not None and not (isinstance(head["id"], int) and isinstance(head["hash"], str)):
        raise TypeError("audit")
    registry = DUMP if value["database"] == "postgresql" else REGISTRY
    if registry not in value["files"]:
        raise ValueError(f"it names no {registry}")
    for name, entry in value["files"].items():
        parts = PurePosixPath(name).parts
        placed = name in _SINGLE or (len(parts) > 1 and parts[0] in _ROOMS)
        if not placed or ".." in parts or "/".join(parts) != name:
            raise ValueError(f"{name!r} is not the name of a file of a backup")
        if not isinstance(entry["size"], int) or not isinstance(entry["sha256"], str):
            raise TypeError(name)


def check_files(backup: Path, manifest: Manifest, say: Say) -> None:
    """Read all files. Raises Conflict that names those that are not what they were."""
    wrong = []
    for number, (name, entry) in enumerate(sorted(manifest["files"].items()), 1):
        path = backup / name
        try:
            if path.is_symlink() or not path.is_file():
                wrong.append(f"{name} is missing")
            elif path.stat().st_size != entry["size"]:
                wrong.append(f"{name} has {path.stat().st_size} bytes instead of {entry['size']}")
            elif entry_of(path) != entry:
                wrong.append(f"{name} has other content")
        except OSError as error:
            wrong.append(f"{name} cannot be read: {error.strerror}")
        if number % 1_000 == 0:
            say(f"checked {number} of {len(manifest['files'])} files")
    if wrong:
        more = f", and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise Conflict(
            f"the backup is damaged: {', '.join(wrong[:5])}{more}",
            "Nothing was changed. Use another backup.",
            files=wrong[:100],
        )
