"""`cluster.json`: what `qd up` or `qd join` was asked for and what runs now.

The supervisor alone writes it, whole and atomically. The controller reads Ray's address in it, the
console what runs, and the next supervisor what it may adopt.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from agents.node.guard.records import read_json, write_file
from agents.supervisor.network import LOOPBACK
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
    address: str  # where this node listens
    asked: dict[str, Any]
    cpus: int
    gpus: int
    simulated: bool
    ray_address: str  # of the head: "127.0.0.1:23456", the same over restarts when it can be
    supervisor: dict[str, Any]
    ray: RayRecord
    controller: ProgramRecord | None  # None on a worker


VERSION = 1


def read(path: Path) -> ClusterRecord | None:
    """The record, or None when there is none or it is of another version."""
    value: Any = read_json(str(path))
    if value is None or value.get("version") != VERSION:
        return None
    found: Any = {"address": LOOPBACK} | value  # older ones had no other address
    record: ClusterRecord = found
    return record


def write(path: Path, record: ClusterRecord) -> None:
    """Durable, because the next supervisor relies on it to find what runs."""
    write_file(str(path), json.dumps(record, indent=1).encode(), durable=True)


def asked_of(record: ClusterRecord) -> Asked:
    return Asked.from_json(record["asked"])


def size_of(record: ClusterRecord) -> Size:
    return Size(record["cpus"], record["gpus"], record["simulated"])


def programs(record: ClusterRecord) -> dict[str, ProgramRecord]:
    """Ray and, on a head, the controller, as the record has them."""
    found: dict[str, ProgramRecord] = {"ray": record["ray"]}
    if record["controller"] is not None:
        found["controller"] = record["controller"]
    return found


def processes(record: ClusterRecord) -> dict[str, Identity | None]:
    """Their processes."""
    return {
        name: Identity.from_json(program["process"]) for name, program in programs(record).items()
    }
