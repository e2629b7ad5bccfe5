"""`cluster.json`: what `qd up` was asked for and what runs now.

The supervisor alone writes it, whole and atomically. The controller reads Ray's address in it, the
console what runs, and the next supervisor what it may adopt.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from agents.node.records import read_json, write_file
from agents.supervisor.policy import Asked, Size
from agents.supervisor.process import Identity


class ProgramRecord(TypedDict):
    """One supervised program. `process` is None while it is down."""

    process: dict[str, Any] | None
    started_at: float | None  # unix time
    restarts: list[float]  # unix times, oldest first
    exit: str  # how it ended last, in words; "" before the first death


class RayRecord(ProgramRecord):
    incarnation: int  # grows with each start of Ray: a new one knows nothing of the one before


class ClusterRecord(TypedDict):
    version: int
    node: str
    asked: dict[str, int | None]
    cpus: int
    gpus: int
    simulated: bool
    ray_address: str  # "127.0.0.1:23456", the same over restarts when it can be
    supervisor: dict[str, Any]
    ray: RayRecord
    controller: ProgramRecord


VERSION = 1


def read(path: Path) -> ClusterRecord | None:
    """The record, or None when there is none or it is of another version."""
    value: Any = read_json(str(path))
    return value if value is not None and value.get("version") == VERSION else None


def write(path: Path, record: ClusterRecord) -> None:
    """Durable, because the next supervisor relies on it to find what runs."""
    write_file(str(path), json.dumps(record, indent=1).encode(), durable=True)


def asked_of(record: ClusterRecord) -> Asked:
    return Asked(**record["asked"])


def size_of(record: ClusterRecord) -> Size:
    return Size(record["cpus"], record["gpus"], record["simulated"])


def processes(record: ClusterRecord) -> dict[str, Identity | None]:
    """Ray's head and the controller, as the record has them."""
    return {
        "ray": Identity.from_json(record["ray"]["process"]),
        "controller": Identity.from_json(record["controller"]["process"]),
    }
