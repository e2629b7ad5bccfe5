"""The environment of a rank (pure): what torchrun, JAX and TensorFlow programs look for, and ours.

Nothing of the agent's own environment passes but what is named here: ranks see neither Ray's settings
nor the cluster's token.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agents.node.guard.scope import UNIT as RANKS_UNIT
from jobs.base.names import SERVICE_PORT
from jobs.wire.messages import GpuFacts, LaunchPlan, LaunchRequest

WORKER_FOLDER = Path(__file__).parents[1] / "worker"
"""Holds `quarterdeck.py`; goes on PYTHONPATH."""

_PASSED = re.compile(
    "PATH|HOME|USER|LOGNAME|SHELL|LANG|LANGUAGE|TZ|TMPDIR|LD_LIBRARY_PATH|CUDA_HOME|CUDA_PATH|"
    "HF_HOME|TORCH_HOME|XDG_CACHE_HOME|SSL_CERT_FILE|SSL_CERT_DIR|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|"
    "(?i:https?|ftp|all|no)_(?:proxy|PROXY)|(?:LC|NCCL|UCX|FI|GLOO|NVIDIA)_.*"
)
"""Set up by whoever runs the node: folders, locale, proxies, interconnect, driver."""

TORCH_PORT, JAX_PORT, TF_PORT = 0, 1, 2
"""Offsets from the gang's first port; TensorFlow takes one for each local rank. A service, which is no
TensorFlow gang, listens on the last (`jobs.base.names.SERVICE_PORT`)."""

INBOX, OUTBOX = "inbox.json", "outbox.json"
"""Files of an attempt's folder by which the controller and a service of ours write to each other."""

_LISTS = {"PYTHONPATH", "PATH", "LD_LIBRARY_PATH", "LIBRARY_PATH", "CPATH", "MANPATH"}
"""Variables of folders with colons between them."""


def ports_needed(procs: int) -> int:
    return TF_PORT + procs


def base_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What of the agent's environment any program on this node may see."""
    base = {name: value for name, value in environ.items() if _PASSED.fullmatch(name)}
    base.setdefault("PATH", "/usr/local/bin:/usr/bin:/bin")
    base.setdefault("LANG", "C.UTF-8")
    return base


def user_environment(base: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """The base for another user than the agent's: what points into the agent's home is left out.

    Args:
        own: what a login of theirs sets.
    """
    home = base.get("HOME", "/root").rstrip("/") + "/"
    kept = {
        name: value
        for name, value in base.items()
        if name in _LISTS or not (value + "/").startswith(home)
    }
    return kept | dict(own)


def guard_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The base, and the unit in which guards are to live (`guard/scope.py`)."""
    unit = {RANKS_UNIT: environ[RANKS_UNIT]} if RANKS_UNIT in environ else {}
    return base_environment(environ) | unit


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
    wanted = ("RAY_AUTH_", "RAY_USE_TLS", "RAY_TLS_", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER")
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
        data: where the versions of data sets lie, by what the job calls them.
        models: where those of models lie.
        own: the part of the folder that is the ranks', where they run as another user than the agent.
    """

    folder: Path
    checkpoints: Path
    tag: str
    python: str | None
    gpus: Sequence[GpuFacts]
    base: Mapping[str, str]
    interface: str | None = None
    data: Mapping[str, Path] = field(default_factory=dict)
    models: Mapping[str, Path] = field(default_factory=dict)
    own: Path | None = None

    @property
    def facing(self) -> Path:
        """Where ranks and we leave files for each other."""
        return self.folder if self.own is None else self.own


def common(plan: LaunchPlan, request: LaunchRequest, node: Node) -> dict[str, str]:
    """The variables that all local ranks share, secrets not among them."""
    simulated = [gpu["uuid"] for gpu in node.gpus if gpu["simulated"]]
    env = {
        **node.base,
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": ":".join(filter(None, (str(WORKER_FOLDER), node.base.get("PYTHONPATH")))),
        "OMP_NUM_THREADS": str(max(1, int(plan["cpus"]) // max(1, plan["procs"]))),
        # As under torchrun every rank sees all of them, and LOCAL_RANK picks. Empty hides what others
        # were given; simulated ones are none that CUDA could open.
        "CUDA_VISIBLE_DEVICES": ",".join(g["uuid"] for g in node.gpus if not g["simulated"]),
        **_gang(plan, request),
        "QD_WORLD_SIZE": str(plan["world_size"]),
        "QD_JOB": plan["job"],
        "QD_RUN": f"{plan['job']}.{plan['attempt']}",
        "QD_STOP_FILE": str(node.folder / "stop"),
        "QD_CHECKPOINT_DIR": str(node.checkpoints),
        "QD_WORK_DIR": str(node.folder / "work"),
        "QD_PARAMS": json.dumps(plan["params"]),
        **{f"QD_DATA_{name.upper()}": str(path) for name, path in node.data.items()},
        **{f"QD_MODEL_{name.upper()}": str(path) for name, path in node.models.items()},
    }
    if node.data:
        env["QD_DATA"] = json.dumps({name: str(path) for name, path in node.data.items()})
    if len(node.models) == 1:
        (env["QD_MODEL"],) = map(str, node.models.values())
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
    if plan["kind"] == "service":
        env |= {
            "HOST": request["node_addresses"][plan["node_rank"]],
            "PORT": str(request["master_port"] + SERVICE_PORT),
            "QD_INBOX": str(node.facing / INBOX),
            "QD_OUTBOX": str(node.facing / OUTBOX),
        }
    if plan["kind"] == "ray":
        env |= _of_ray_driver(plan, request, node)
    for name, value in plan["env"].items():
        if value is None:
            env.pop(name, None)
        else:
            env[name] = _extended(name, value, env)
    if any(name in env for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")):
        # No proxy reaches this machine's loopback interface, and the MLflow client would ask it to.
        known = env.get("no_proxy") or env.get("NO_PROXY")
        env["no_proxy"] = env["NO_PROXY"] = ",".join(filter(None, (known, "127.0.0.1,localhost")))
    env["QD_GUARD"] = node.tag  # last: by it our processes are found and killed
    return env


def _of_ray_driver(plan: LaunchPlan, request: LaunchRequest, node: Node) -> dict[str, str]:
    """What has Ray run the driver's tasks as the driver runs itself (`worker/quarterdeck_ray.py`)."""
    address = request.get("ray_address") or ""
    driver_only = {"CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"} - plan["env"].keys()  # Ray sets them
    env = {
        "RAY_RUNTIME_ENV_HOOK": "quarterdeck_ray.runtime_env",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # under `uv run` Ray would not call the hook
        "RAY_TRAIN_CALLBACKS": "quarterdeck_ray.TrainReports",
        "RAY_TUNE_CALLBACKS": "quarterdeck_ray.TuneReports",
        "QD_RAY_LOG": str(node.folder / "rank-0.log"),
        "QD_RAY_DRIVER_ONLY": ",".join(sorted(driver_only)),
        # Ray has settings of its own for each of its processes; the job's go with those.
        "QD_RAY_FOR_TASKS": ",".join(sorted(n for n in plan["env"] if n.startswith("RAY_"))),
        "QD_RAY_SECRETS": ",".join(sorted(request["secrets"])),
    }
    if address:
        env["RAY_ADDRESS"] = address
    if address and not address.startswith("127."):
        env["QD_RAY_NODES"] = "1"  # there may be others, which do not have the work folder
    return env


def _gang(plan: LaunchPlan, request: LaunchRequest) -> dict[str, str]:
    """What tells all ranks of each other, in the words of their launcher. A plain process gets none."""
    launch = plan.get("launch", "torchrun")
    size, procs, node = str(plan["world_size"]), str(plan["procs"]), str(plan["node_rank"])
    address, port = request["master_addr"], request["master_port"]
    meeting = {"MASTER_ADDR": address, "MASTER_PORT": str(port + TORCH_PORT)}
    jax = {
        "JAX_COORDINATOR_ADDRESS": f"{address}:{port + JAX_PORT}",
        "JAX_NUM_PROCESSES": size,
    }
    if launch == "torchrun":
        return {
            **meeting,
            **jax,
            "WORLD_SIZE": size,
            "LOCAL_WORLD_SIZE": procs,
            "NODE_RANK": node,
            "GROUP_RANK": node,
            "TORCHELASTIC_RUN_ID": f"{plan['job']}.{plan['attempt']}",
            "TORCHELASTIC_RESTART_COUNT": str(plan["attempt"] - 1),
        }
    if launch == "mpi":
        return {**meeting, "OMPI_COMM_WORLD_SIZE": size, "OMPI_COMM_WORLD_LOCAL_SIZE": procs}
    if launch == "jax":
        return {
            **jax,
            "OMPI_COMM_WORLD_SIZE": size,
            # By this one JAX knows that it is on a cluster; the address in it is not used.
            "OMPI_MCA_orte_hnp_uri": f"0.0;tcp://{address}:{port + JAX_PORT}",
        }
    return {}


def _extended(name: str, value: str, env: Mapping[str, str]) -> str:
    """A variable of the job's: `$NAME` in its own value is what it would be without the job.

    PYTHONPATH goes before ours, which has the helper, unless it says itself where ours goes.
    """
    own = re.compile(rf"\$(?:{name}\b|\{{{name}\}})")
    if name == "PYTHONPATH" and not own.search(value):
        value = f"{value}:$PYTHONPATH"
    text = own.sub(lambda _: env.get(name, ""), value)
    # An empty entry in such a list is the current folder, which nobody meant.
    return text.strip(":") if name in _LISTS and text != value else text


def of_rank(
    plan: LaunchPlan, request: LaunchRequest, folder: Path, local_rank: int
) -> dict[str, str]:
    """The variables of one rank. What the user set goes first, except for what makes it this rank."""
    rank = plan["first_rank"] + local_rank
    env = {
        "QD_RANK": str(rank),
        "QD_METRICS_FILE": str(folder / f"metrics-{rank}.jsonl"),
        "QD_STOP_LISTENER_FILE": str(folder / f"listening-{rank}"),
    }
    launch = plan.get("launch", "torchrun")
    if launch == "torchrun":
        env |= {"RANK": str(rank), "LOCAL_RANK": str(local_rank)}
    if launch in ("torchrun", "jax"):
        env["JAX_PROCESS_ID"] = str(rank)
    if launch in ("mpi", "jax"):
        env["OMPI_COMM_WORLD_RANK"] = str(rank)
        env["OMPI_COMM_WORLD_LOCAL_RANK"] = str(local_rank)
    if launch == "jax" and (devices := _devices(plan, local_rank)):
        env["JAX_LOCAL_DEVICE_IDS"] = devices
    if launch == "torchrun" and plan["world_size"] > 1:
        workers = [
            f"{address}:{request['master_port'] + TF_PORT + local}"
            for address in request["node_addresses"]
            for local in range(plan["procs"])
        ]
        task = {"type": "worker", "index": rank}
        env["TF_CONFIG"] = json.dumps({"cluster": {"worker": workers}, "task": task})
    return env


def _devices(plan: LaunchPlan, local_rank: int) -> str:
    """The GPUs of a JAX process: an equal share of the node's. By itself JAX would take one for each."""
    each = int(plan["gpus"]) // plan["procs"]
    return ",".join(str(local_rank * each + number) for number in range(each))
