"""The environment of a rank (pure): what torchrun, JAX and TensorFlow programs look for, and ours.

Nothing of the agent's own environment passes but what is named here: ranks see neither Ray's settings
nor the cluster's token.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.wire import GpuFacts, LaunchPlan, LaunchRequest

WORKER_FOLDER = Path(__file__).parent / "worker"
"""Holds `quarterdeck.py`; goes on PYTHONPATH."""

_PASSED = re.compile(
    "PATH|HOME|USER|LOGNAME|SHELL|LANG|LANGUAGE|TZ|TMPDIR|LD_LIBRARY_PATH|CUDA_HOME|CUDA_PATH|"
    "HF_HOME|TORCH_HOME|XDG_CACHE_HOME|SSL_CERT_FILE|SSL_CERT_DIR|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|"
    "(?i:https?|ftp|all|no)_(?:proxy|PROXY)|(?:LC|NCCL|UCX|FI|GLOO|NVIDIA)_.*"
)
"""Set up by whoever runs the node: folders, locale, proxies, interconnect, driver."""

TORCH_PORT, JAX_PORT, TF_PORT = 0, 1, 2
"""Offsets from the gang's first port; TensorFlow takes one for each local rank."""


def ports_needed(procs: int) -> int:
    return TF_PORT + procs


def base_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What of the agent's environment any program on this node may see."""
    base = {name: value for name, value in environ.items() if _PASSED.fullmatch(name)}
    base.setdefault("PATH", "/usr/local/bin:/usr/bin:/bin")
    base.setdefault("LANG", "C.UTF-8")
    return base


def builder_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The base, and where packages come from: for making environments. Ranks do not get it, since an
    index's address can hold a password."""
    index = {name: value for name, value in environ.items() if name.startswith("PIP_")}
    return base_environment(environ) | index


def ray_credentials(environ: Mapping[str, str]) -> dict[str, str]:
    """What a Ray driver needs to be let in. Treated as secret; for jobs of kind `ray` only.

    The odd one out is the switch without which Ray takes 127.0.0.1, where an embedded cluster
    listens, for this machine's public address, where it does not.
    """
    wanted = ("RAY_AUTH_", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER")
    return {name: value for name, value in environ.items() if name.startswith(wanted)}


@dataclass(frozen=True, slots=True)
class Node:
    """What an environment takes from the node.

    Attributes:
        folder: the attempt's.
        checkpoints: the job's checkpoint folder.
        tag: what marks the processes of this attempt on this node (QD_GUARD).
        python: interpreter that leads PATH, if any.
        gpus: those allotted.
        base: see `base_environment`.
        interface: the network interface that has the node's address in the cluster, if one has.
    """

    folder: Path
    checkpoints: Path
    tag: str
    python: str | None
    gpus: Sequence[GpuFacts]
    base: Mapping[str, str]
    interface: str | None = None


def common(plan: LaunchPlan, request: LaunchRequest, node: Node) -> dict[str, str]:
    """The variables that all local ranks share, secrets not among them."""
    port = request["master_port"]
    simulated = [gpu["uuid"] for gpu in node.gpus if gpu["simulated"]]
    env = {
        **node.base,
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": str(WORKER_FOLDER),
        "OMP_NUM_THREADS": str(max(1, int(plan["cpus"]) // max(1, plan["procs"]))),
        # As under torchrun every rank sees all of them, and LOCAL_RANK picks. Empty hides what others
        # were given; simulated ones are none that CUDA could open.
        "CUDA_VISIBLE_DEVICES": ",".join(g["uuid"] for g in node.gpus if not g["simulated"]),
        "WORLD_SIZE": str(plan["world_size"]),
        "LOCAL_WORLD_SIZE": str(plan["procs"]),
        "NODE_RANK": str(plan["node_rank"]),
        "GROUP_RANK": str(plan["node_rank"]),
        "MASTER_ADDR": request["master_addr"],
        "MASTER_PORT": str(port + TORCH_PORT),
        "TORCHELASTIC_RUN_ID": f"{plan['job']}.{plan['attempt']}",
        "TORCHELASTIC_RESTART_COUNT": str(plan["attempt"] - 1),
        "JAX_COORDINATOR_ADDRESS": f"{request['master_addr']}:{port + JAX_PORT}",
        "JAX_NUM_PROCESSES": str(plan["world_size"]),
        "QD_JOB": plan["job"],
        "QD_RUN": f"{plan['job']}.{plan['attempt']}",
        "QD_STOP_FILE": str(node.folder / "stop"),
        "QD_CHECKPOINT_DIR": str(node.checkpoints),
        "QD_WORK_DIR": str(node.folder / "work"),
        "QD_PARAMS": json.dumps(plan["params"]),
    }
    if plan["nnodes"] > 1 and node.interface:
        # Gloo takes what the host's own name resolves to, which on many machines is 127.0.x.1. NCCL
        # looks at the interfaces by itself, and may have better ones than the cluster's.
        env.setdefault("GLOO_SOCKET_IFNAME", node.interface)
    if simulated:
        env["QD_SIMULATED_GPUS"] = ",".join(simulated)
    if plan["seed"] is not None:
        env["QD_SEED"] = str(plan["seed"])
    if node.python:
        folder = Path(node.python).parent
        env["PATH"] = f"{folder}:{env['PATH']}"
        if (folder.parent / "pyvenv.cfg").exists():
            env["VIRTUAL_ENV"] = str(folder.parent)
    if plan["kind"] == "ray" and (address := request.get("ray_address")):
        env["RAY_ADDRESS"] = address
    env.update(plan["env"])
    env["QD_GUARD"] = node.tag  # last: by it our processes are found and killed
    return env


def of_rank(
    plan: LaunchPlan, request: LaunchRequest, folder: Path, local_rank: int
) -> dict[str, str]:
    """The variables of one rank. What the user set goes first, except for what makes it this rank."""
    rank = plan["first_rank"] + local_rank
    env = {
        "RANK": str(rank),
        "LOCAL_RANK": str(local_rank),
        "JAX_PROCESS_ID": str(rank),
        "QD_RANK": str(rank),
        "QD_METRICS_FILE": str(folder / f"metrics-{rank}.jsonl"),
        "QD_STOP_LISTENER_FILE": str(folder / f"listening-{rank}"),
    }
    if plan["world_size"] > 1 and "TF_CONFIG" not in plan["env"]:
        workers = [
            f"{address}:{request['master_port'] + TF_PORT + local}"
            for address in request["node_addresses"]
            for local in range(plan["procs"])
        ]
        task = {"type": "worker", "index": rank}
        env["TF_CONFIG"] = json.dumps({"cluster": {"worker": workers}, "task": task})
    return env
