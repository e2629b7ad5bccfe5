"""What a guard is to run goes to the attempt's folder, before the fork server lets the guard go."""

from __future__ import annotations

import json
import os
from pathlib import Path

from agents.node import accounts
from agents.node.guard import records
from agents.node.staging import containers, environment
from agents.node.staging.images import Image
from jobs.base.disk import storage_full
from jobs.wire.messages import LaunchPlan, LaunchRequest


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
    folder: Path,
    plan: LaunchPlan,
    request: LaunchRequest,
    node: environment.Node,
    image: Image | None = None,
) -> None:
    """Write what the guard reads. Secrets go to a file of their own that the guard removes.

    Args:
        image: what the ranks run in, if they run in a container.

    Raises StorageFull.
    """
    if image is not None:
        node = containers.inside(node, image)
    facing = accounts.facing(folder)
    account = accounts.of_attempt(folder)
    env = environment.common(plan, request, node)
    launch = {
        "key": plan["key"],
        "tag": node.tag,
        "work": str(folder / "work"),
        "grace": plan["grace"],
        "notice": plan["notice"],
        "memory": plan["memory"],
        "lease_until": request["lease_until"],
        # A server that the job names itself is the user's business; so is `MLFLOW_TRACKING_URI: null`.
        "tracking": plan["kind"] != "service" and "MLFLOW_TRACKING_URI" not in plan["env"],
        "env": env,
        "ranks": [
            {
                "rank": plan["first_rank"] + local_rank,
                "local_rank": local_rank,
                "argv": plan["argv"],
                "env": environment.of_rank(plan, request, facing, local_rank),
            }
            for local_rank in range(plan["procs"])
        ],
    }
    if image is not None:
        launch["container"] = containers.container(plan, node, image, env, os.environ)
    if account is not None:
        launch["as"], launch["own"] = account.to_json(), accounts.OWN
    secrets = dict(request["secrets"])
    if plan["kind"] == "ray":
        secrets |= environment.ray_credentials(os.environ)
    try:
        if not node.checkpoints.is_dir():
            node.checkpoints.mkdir(mode=0o700, parents=True, exist_ok=True)
            accounts.give(node.checkpoints, account)
        write_lease(folder, request["lease_until"])
        for name, content in ((records.SECRETS, secrets), (records.LAUNCH, launch)):
            records.write_file(str(folder / name), json.dumps(content).encode(), durable=False)
    except OSError as error:
        raise storage_full(f"cannot write to {folder}", error) from error
