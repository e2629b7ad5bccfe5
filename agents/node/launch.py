"""Starting a guard: what it is to run goes to the attempt's folder, then the guard is let go."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from agents.node import environment, records
from jobs.errors import StorageFull
from jobs.wire import LaunchPlan, LaunchRequest

GUARD = Path(__file__).with_name("guard.py")
START_TIMEOUT = 30.0
"""Seconds to wait for the ranks to be started: on a healthy node it takes hundredths of one."""


def write_lease(folder: Path, until: float) -> None:
    """Put a lease's end (boot clock, seconds) where the guard looks, in one step. Raises OSError.

    Two files take turns, so that a renewal needs no room: a disk that is full must not stop the ranks.
    Not synced to disk: after a power cut the clock starts anew and so does everything else.
    """
    lease, spare, old = (folder / f"{records.LEASE}{end}" for end in ("", ".spare", ".old"))
    first = not lease.exists()
    _overwrite(spare, until)
    if not first:
        old.unlink(missing_ok=True)
        old.hardlink_to(lease)
    spare.replace(lease)
    if first:
        _overwrite(spare, until)
    else:
        old.replace(spare)


def _overwrite(path: Path, until: float) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(descriptor, f"{until!r:<32}".encode(), 0)  # always as long as before
    finally:
        os.close(descriptor)


def write_launch(
    folder: Path, plan: LaunchPlan, request: LaunchRequest, node: environment.Node
) -> None:
    """Write what the guard reads. Secrets go to a file of their own that the guard removes.

    Raises StorageFull.
    """
    launch = {
        "key": plan["key"],
        "tag": node.tag,
        "work": str(folder / "work"),
        "grace": plan["grace"],
        "notice": plan["notice"],
        "lease_until": request["lease_until"],
        "env": environment.common(plan, request, node),
        "ranks": [
            {
                "rank": plan["first_rank"] + local_rank,
                "local_rank": local_rank,
                "argv": plan["argv"],
                "env": environment.of_rank(plan, request, folder, local_rank),
            }
            for local_rank in range(plan["procs"])
        ],
    }
    secrets = dict(request["secrets"])
    if plan["kind"] == "ray":
        secrets |= environment.ray_credentials(os.environ)
    try:
        node.checkpoints.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_lease(folder, request["lease_until"])
        for name, content in ((records.SECRETS, secrets), (records.LAUNCH, launch)):
            records.write_file(str(folder / name), json.dumps(content).encode(), durable=False)
    except OSError as error:
        raise StorageFull(f"cannot write to {folder}: {error.strerror}") from error


def spawn_guard(folder: Path, environ: Mapping[str, str]) -> None:
    """Start the guard of a folder; returns when its ranks run, or when none will. Blocking.

    What came of it is on disk: a guard that finds another one, or `started`, does nothing. A guard
    that could not be started at all leaves no trace there, and raises OSError.
    """
    with (folder / records.LOG).open("ab") as log:
        subprocess.run(
            # -S: the environment's .pth files are none of its business, and cost 20 ms.
            [sys.executable, "-I", "-S", str(GUARD), str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=dict(environ),
            start_new_session=True,
            close_fds=True,
            timeout=START_TIMEOUT,
            check=False,
        )
