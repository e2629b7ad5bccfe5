"""At most one controller for each state folder, and who it is.

`cluster.json` says what runs, but it may be out of date: a supervisor whose disk is full starts programs
all the same, and may be killed before there is room. Two controllers on one registry would each believe
in what they remember. So a controller holds a lock for as long as it lives, which needs no room, and
which tells its pid to whoever asks.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from agents.node.guard.records import lock_holder
from agents.supervisor.process import Identity
from agents.supervisor.record import ClusterRecord, processes
from jobs.base.errors import Conflict
from jobs.base.places import Places

PATIENCE = 10.0
"""Seconds for an earlier controller to be gone."""


def hold(path: Path, patience: float = PATIENCE) -> int:
    """Take the lock and return its descriptor. It is this process's alone, not its children's, and ends
    with it; to close any descriptor of that file would end it too.

    Raises Conflict when another process keeps it, OSError when the file cannot be made.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except (BlockingIOError, PermissionError):
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise Conflict(
                    f"another controller uses {path.parent}: pid {lock_holder(str(path))}"
                ) from None
            time.sleep(0.05)


def known(places: Places, record: ClusterRecord | None) -> dict[str, Identity | None]:
    """What runs: as the record has it, and the controller that holds the lock where there is one."""
    found = processes(record) if record else {}
    holder = lock_holder(str(places.controller_lock))
    return found | {"controller": Identity.of(holder)} if holder else found
