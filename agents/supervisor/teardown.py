"""Stop a cluster so that nothing is left: no process, no file of Ray's, no stale socket."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from agents.node.guard import records as node_records
from agents.supervisor import forced, head, rayfolder, solo
from agents.supervisor.process import Identity, members, stop, sweep, terminate
from agents.supervisor.record import ClusterRecord
from jobs.base.places import Places

CONTROLLER_GRACE = 10.0
"""Seconds for the controller to finish its writes. It can be killed at any time; this is politeness."""

RAY_GRACE = 1.0
"""Seconds for `ray start --block` to end its processes. With an agent on it Ray takes ten times as
long, and there is nothing to save: an agent may be killed at any moment."""

GUARD_GRACE = 40.0
"""Seconds for a guard to stop its ranks: a job's grace is 30 s unless it says otherwise."""


def take_down(places: Places, record: ClusterRecord | None) -> list[int]:
    """Stop the controller, then Ray, and remove what they leave. Returns pids that would not end."""
    known = solo.known(places, record)
    left = []
    for name, grace, folder in (
        ("controller", CONTROLLER_GRACE, None),
        ("ray", RAY_GRACE, head.folder(places)),
    ):
        process = known.get(name)
        if process is not None:
            stop(process, grace)
        left += [entry.pid for entry in sweep(process, folder)]
    if not left:
        tidy(places)
    return left


def tidy(places: Places) -> list[str]:
    """Remove the files of what ran; a sentence for each that cannot be removed."""
    return rayfolder.remove(places.ray_temp) + list(
        forced.remove((places.socket, places.cluster_file))
    )


def remains(places: Places, record: ClusterRecord | None) -> list[int]:
    """Pids of Ray and controller processes of this state folder that run now."""
    known = solo.known(places, record)
    found = members(known.get("controller"), None)
    found += members(known.get("ray"), head.folder(places))
    return sorted({entry.pid for entry in found})


def guards(node: Path) -> dict[str, Identity]:
    """The guards of this node that have ranks, by the folder of their attempt. One that has written
    its last record has none: it is only about to end."""
    found = {}
    for handle in sorted((node / "attempts").glob(f"*/{node_records.HANDLE}")):
        if (handle.parent / node_records.EXIT).exists():
            continue
        value = node_records.read_json(str(handle)) or {}
        with suppress(KeyError, TypeError, ValueError):
            guard = Identity(int(value["pid"]), int(value["start_time"]), str(value["boot_id"]))
            if guard.alive:
                found[handle.parent.name] = guard
    for name, guard in forced.guards(node).items():  # whose handle is damaged, or not yet written
        if not (node / "attempts" / name / node_records.EXIT).exists():
            found.setdefault(name, guard)
    return found


def stop_ranks(node: Path) -> list[str]:
    """Stop every attempt that runs here, in order if its guard still can; returns their names."""
    running = guards(node)
    deadline = time.monotonic() + GUARD_GRACE
    for guard in running.values():  # all at once: their graces run side by side
        terminate(guard)
    for name, guard in running.items():
        stop(guard, deadline - time.monotonic())
        handle = node_records.read_json(str(node / "attempts" / name / node_records.HANDLE)) or {}
        while node_records.kill_left_over(str(handle.get("tag", name)), handle.get("cgroup")):
            time.sleep(0.02)
    return list(running)
