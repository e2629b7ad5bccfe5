"""Room on a node's disk: what staging may take of it."""

from __future__ import annotations

import shutil
from pathlib import Path

from jobs.base.errors import StorageFull
from jobs.base.units import format_size

RESERVE = 256 * 2**20
"""Bytes of disk that stay free, for logs and records of what runs already."""


def check_room(folder: Path, needed: int, what: str) -> None:
    """Raises StorageFull when `needed` bytes more do not fit; `what` says in words what takes them."""
    free = shutil.disk_usage(folder).free
    if free < needed + RESERVE:
        raise StorageFull(
            f"{what} takes {format_size(needed)} and {format_size(RESERVE)} stay in reserve, but the "
            f"node has {format_size(free)} free at {folder}"
        )
