"""How Ray is started, on a head and on a worker: command line, environment, port, token and folder."""

from __future__ import annotations

import contextlib
import json
import os
import random
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from agents.node.guard.records import write_file
from agents.supervisor import tls
from agents.supervisor.network import LOOPBACK
from agents.supervisor.policy import Size
from jobs.base import python
from jobs.base.errors import InvalidInput
from jobs.base.places import Places

OBJECT_STORE = 200 * 1024 * 1024
"""Bytes of shared memory. Ray carries calls and log chunks here, never training data."""

PORTS = range(20000, 30000)
"""Below the kernel's ephemeral range, so that no outgoing connection takes the port while Ray is
down: a head that comes back must have the address that the nodes know."""

RAY_SETTINGS = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray nices its workers to 15, and what they start inherits it.
    "RAY_worker_niceness": "0",
    # Its Prometheus port would be open to everybody, and nobody reads it: the agent measures the node.
    "RAY_enable_metrics_collection": "false",
    # Without it every process of Ray ends itself a minute after it lost the head.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "86400",
    # A worker's raylet asks this often whether the head still knows it. One that does not (a new head,
    # or silence for too long) makes it end, and the supervisor starts one that joins anew; by default
    # that takes a minute, most of a lease.
    "RAY_raylet_liveness_self_check_interval_ms": "5000",
    # Nobody asks Ray what its tasks do, and to note it costs an agent as much as watching eight GPUs.
    "RAY_task_events_report_interval_ms": "0",
    "RAY_event_stats": "false",
    # What was given back a moment ago is not free yet for Ray: a raylet reports it after up to 100 ms,
    # and the head, once refused, asks again after 100, 150, 225 ms. Who wants the very same is handed it
    # on (`agents.fabric.groups`); this is for who wants another shape of it. It costs a raylet 0.2 % of
    # a core. Now and then Ray still takes up to a second.
    "RAY_raylet_report_resources_period_milliseconds": "20",
    "RAY_gcs_create_placement_group_retry_min_interval_ms": "10",
    "RAY_gcs_create_placement_group_retry_max_interval_ms": "200",
    # Our only worker is the agent; idle ones cost 80 MB each.
    "RAY_enable_worker_prestart": "false",
    "RAY_prestart_worker_first_driver": "false",
    # It would kill the agent when ranks, which are none of Ray's, fill the memory.
    "RAY_memory_monitor_refresh_ms": "0",
    # A dead raylet is noticed after about 10 s; a machine too busy to answer for 25 s is not dead.
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "2000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "5",
}

ONE_MACHINE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""With this off Ray believes in no cluster beyond this machine, and everything listens on 127.0.0.1.
(With it on, Ray replaces 127.0.0.1 by the machine's public address and listens on all.)"""


def folder(places: Places) -> Path:
    """Ray's folder. Ray opens it to everybody (0777), so it lies in one that is ours (0700)."""
    return places.ray_temp / "r"


def command(
    places: Places, node: str, size: Size, address: str, port: int, ports: int | None = None
) -> list[str]:
    """A head in the foreground; it ends when one of its processes dies.

    Args:
        ports: the first of the ports to listen on, where they are to be known (`pinned`).
    """
    return [
        *_START,
        "--head",
        f"--port={port}",
        "--include-dashboard=false",
        "--include-log-monitor=false",
        "--no-monitor",  # the autoscaler
        *_options(places, node, size, address, ports),
    ]


def join_command(
    places: Places, node: str, size: Size, address: str, head: str, ports: int | None = None
) -> list[str]:
    """A worker's Ray, in the same way. `head` is "host:port"."""
    return [*_START, f"--address={head}", *_options(places, node, size, address, ports)]


def pinned(first: int | None) -> list[str]:
    """All that Ray listens on, within 100 ports from `first`: that one is the head's own, the next three
    every node's, the last 90 its workers' and drivers'. Without `first` only the head's port is known."""
    if first is None:
        return []
    return [
        f"--node-manager-port={first + 1}",
        f"--object-manager-port={first + 2}",
        f"--runtime-env-agent-port={first + 3}",
        f"--min-worker-port={first + 10}",
        f"--max-worker-port={first + 99}",
    ]


_START = python.module("agents.supervisor.ray_head", "start", "--block")


def _options(places: Places, node: str, size: Size, address: str, ports: int | None) -> list[str]:
    return [
        *pinned(ports),
        f"--node-ip-address={address}",
        f"--temp-dir={folder(places)}",
        f"--num-cpus={size.cpus}",
        f"--num-gpus={size.gpus}",
        f"--object-store-memory={OBJECT_STORE}",
        f"--labels=qd.node={node}",
        "--dashboard-agent-listen-port=0",
        "--disable-usage-stats",
        "--log-style=record",
        "--log-color=false",
    ]


def clean(environ: Mapping[str, str]) -> dict[str, str]:
    """The user's environment without what would steer Ray, or threads that Ray would hand on."""
    foreign = ("RAY_", "OMP_", "MKL_", "OPENBLAS_", "QD_NODE_", "QD_SIMULATE_")
    return {name: value for name, value in environ.items() if not name.startswith(foreign)}


def environment(
    environ: Mapping[str, str], places: Places, node: str, size: Size, address: str
) -> dict[str, str]:
    """What Ray and so the agent are started with. Ranks never see it: the guard makes theirs."""
    mine = ONE_MACHINE if address == LOOPBACK else {}
    mine = mine | {
        "RAY_AUTH_TOKEN_PATH": str(places.ray_token),
        "QD_NODE_STATE": str(places.node),
        "QD_NODE_NAME": node,
        "PYTHONPATH": python.search_path(
            environ.get("PYTHONPATH", "")
        ),  # its workers run the agent
    }
    if size.simulated:
        mine["QD_SIMULATE_GPUS"] = str(size.gpus)
    return clean(environ) | RAY_SETTINGS | tls.variables(environ) | mine


def make_token(path: Path) -> None:
    """Make the token that every call inside Ray carries, readable by its owner only."""
    if path.exists() and path.stat().st_size:
        return
    write_file(str(path), secrets.token_hex(32).encode(), durable=True)


def take_token(path: Path, given: Path) -> None:
    """Keep a copy of the token of the cluster to join, readable by its owner only.

    Raises InvalidInput when the file given cannot be one.
    """
    hint = "Copy the head's token file to this machine: `qd up` on the head says where it is."
    try:
        token = given.read_text().strip()
    except (OSError, ValueError) as error:
        raise InvalidInput(f"cannot read the token in {given}: {error}", hint) from error
    if len(token) < 32 or not token.isalnum():
        raise InvalidInput(f"{given} holds no token", hint)
    write_file(str(path), token.encode(), durable=True)


def free_port(wanted: int | None, address: str = LOOPBACK) -> int:
    """A TCP port for the head: `wanted` when it can be had, else any of PORTS.

    Raises OSError when none is free.
    """
    candidates = [] if wanted is None else [wanted]
    candidates += random.sample(PORTS, 50)
    for port in candidates:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gRPC does
            probe.bind((address, port))
            return port
    raise OSError(f"no free TCP port among {len(candidates)} tried in {PORTS}")


def prepare_folder(places: Places) -> None:
    """Make Ray's folder, and drop the sessions of heads that are gone, except the last one's logs.

    Raises OSError when somebody else owns the name in /tmp.
    """
    outer = places.ray_temp
    outer.mkdir(mode=0o700, exist_ok=True)
    status = outer.lstat()
    if status.st_uid != os.getuid() or outer.is_symlink():
        raise OSError(f"{outer} belongs to somebody else")
    outer.chmod(0o700)
    inner = folder(places)
    inner.mkdir(exist_ok=True)
    sessions = sorted(path for path in inner.glob("session_2*") if not path.is_symlink())
    for old in sessions[:-1]:
        shutil.rmtree(old, ignore_errors=True)


def count_gpus() -> int:
    """GPUs that the driver shows; 0 without a driver.

    Asked in a process of its own: the driver's library stays mapped for good once it is loaded.
    """
    program = "import pynvml; pynvml.nvmlInit(); print(pynvml.nvmlDeviceGetCount()); pynvml.nvmlShutdown()"
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", program], capture_output=True, timeout=30, check=True
        )
        return int(json.loads(done.stdout))
    except (subprocess.SubprocessError, ValueError):
        return 0
