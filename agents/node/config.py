"""Where an agent keeps its state and what it stands for."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agents.node.caches import Bounds
from jobs.errors import InvalidInput
from jobs.places import places
from jobs.units import parse_duration, parse_size


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
        caches: what its caches of code and environments may come to.
    """

    root: Path
    node: str
    cluster: str
    simulate_gpus: int | None = None
    checkpoint_root: Path | None = None
    caches: Bounds = field(default_factory=Bounds)

    @classmethod
    def from_env(cls, cluster: str, environ: Mapping[str, str]) -> AgentConfig:
        """Read QD_NODE_STATE, QD_NODE_NAME, QD_SIMULATE_GPUS, QD_CHECKPOINT_ROOT, QD_CACHE_SIZE
        ("50GiB") and QD_CACHE_AGE ("30d"); an unset or empty one means its default. Raises InvalidInput
        for a number that is none."""
        state, checkpoints = environ.get("QD_NODE_STATE"), environ.get("QD_CHECKPOINT_ROOT")
        simulate = environ.get("QD_SIMULATE_GPUS")
        if simulate and not simulate.isdecimal():
            raise InvalidInput(f"QD_SIMULATE_GPUS is '{simulate}'", "Set it to a number such as 8.")
        usual = Bounds()
        try:
            size, age = environ.get("QD_CACHE_SIZE"), environ.get("QD_CACHE_AGE")
            caches = Bounds(
                parse_size(size) if size else usual.size, parse_duration(age) if age else usual.age
            )
        except ValueError as error:
            hint = "They are a size such as 50GiB, and a time such as 30d."
            raise InvalidInput(f"QD_CACHE_SIZE or QD_CACHE_AGE: {error}", hint) from error
        return cls(
            caches=caches,
            root=Path(state).expanduser().absolute() if state else places(environ).node,
            node=environ.get("QD_NODE_NAME") or socket.gethostname(),
            cluster=cluster,
            simulate_gpus=int(simulate) if simulate else None,
            checkpoint_root=Path(checkpoints).expanduser().absolute() if checkpoints else None,
        )
