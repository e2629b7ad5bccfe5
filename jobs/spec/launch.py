"""How the processes of a job learn of each other, and the variables that follow from it.

A job of one process is plain unless it asks for ranks: `python train.py` finds what it would find in a
shell, for many programs (nanoGPT, Lightning, the Hugging Face Trainer) take RANK as a sign that somebody
else has started all of their processes already.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

Launcher = Literal["torchrun", "plain", "jax", "mpi"]

_JAX = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
_TORCHRUN = (
    "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "NODE_RANK", "GROUP_RANK", "MASTER_ADDR",
    "MASTER_PORT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "TF_CONFIG", *_JAX,
)  # fmt: skip
_MPI = (
    "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
    "OMPI_COMM_WORLD_LOCAL_SIZE", "MASTER_ADDR", "MASTER_PORT",
)  # fmt: skip
_FOUND_BY_JAX = (
    *_JAX, "JAX_LOCAL_DEVICE_IDS", "OMPI_MCA_orte_hnp_uri", "OMPI_COMM_WORLD_RANK",
    "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
)  # fmt: skip
"""JAX takes the address from a variable of its own, and the count and the place of a process from the
cluster that it finds itself on; it knows Open MPI's by these."""

_OF_LAUNCHER: dict[str, tuple[str, ...]] = {
    "torchrun": _TORCHRUN,
    "plain": (),
    "jax": _FOUND_BY_JAX,
    "mpi": _MPI,
}
_OF_SERVICE = ("HOST", "PORT")
_OF_RAY = (
    "RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_RUNTIME_ENV_HOOK",
)  # fmt: skip


def launcher(asked: Launcher | None, kind: str, world_size: int) -> Launcher:
    """The one that was asked for; without, torchrun's way for several processes and none for one."""
    if asked is not None:
        return asked
    return "torchrun" if kind != "ray" and world_size > 1 else "plain"


def why_reserved(name: str, known: Mapping[str, Any]) -> str:
    """Why a job must not set this variable, in words; empty when it may.

    Only what is really set for such a job is reserved.

    Args:
        known: the job's fields that are known to be right, as far as a validator has come.
    """
    procs, kind = known.get("procs_per_node", 1), known.get("kind", "gang")
    if procs == "gpu":
        procs = int(known["resources"].gpu) if "resources" in known else 1
    launch = launcher(known.get("launch"), kind, procs * known.get("nodes", 1))
    if name in _OF_LAUNCHER[launch]:
        return (
            f"Quarterdeck sets this variable itself for ranks (launch: {launch}); allowed: another "
            "name, or launch: plain, where no rank variables are set"
        )
    ours = name.startswith("QD_") or name == "CUDA_VISIBLE_DEVICES"
    if kind == "service" and name in _OF_SERVICE:
        return "Quarterdeck sets where a service listens; allowed: another name"
    if ours or (kind == "ray" and name in _OF_RAY):
        return "Quarterdeck sets this variable itself; allowed: another name"
    return ""
