"""Where an agent keeps its state and what it stands for."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jobs.errors import InvalidInput
from jobs.places import places


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """How an agent is set up.

    Attributes:
        root: its folder: attempts, caches, checkpoints. One agent at a time uses it.
        node: the node's name in the cluster.
        cluster: id of the cluster it serves; part of every attempt's key.
        simulate_gpus: how many simulated GPUs to offer; None offers the real ones.
        checkpoint_root: where jobs keep checkpoints, for instance on a shared file system;
            None keeps them below `root`.
    """

    root: Path
    node: str
    cluster: str
    simulate_gpus: int | None = None
    checkpoint_root: Path | None = None

    @classmethod
    def from_env(cls, cluster: str, environ: Mapping[str, str]) -> AgentConfig:
        """Read QD_NODE_STATE, QD_NODE_NAME, QD_SIMULATE_GPUS and QD_CHECKPOINT_ROOT; an unset or
        empty one means its default. Raises InvalidInput for a number that is none."""
        state, checkpoints = environ.get("QD_NODE_STATE"), environ.get("QD_CHECKPOINT_ROOT")
        simulate = environ.get("QD_SIMULATE_GPUS")
        if simulate and not simulate.isdecimal():
            raise InvalidInput(f"QD_SIMULATE_GPUS is '{simulate}'", "Set it to a number such as 8.")
        return cls(
            root=Path(state).expanduser().absolute() if state else places(environ).node,
            node=environ.get("QD_NODE_NAME") or socket.gethostname(),
            cluster=cluster,
            simulate_gpus=int(simulate) if simulate else None,
            checkpoint_root=Path(checkpoints).expanduser().absolute() if checkpoints else None,
        )
