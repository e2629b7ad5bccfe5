"""Where an agent keeps its state and what it stands for."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agents.node.results.kept import USUAL
from agents.node.staging.caches import Bounds
from jobs.base.errors import InvalidInput
from jobs.base.places import places
from jobs.base.units import parse_duration, parse_size


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
        left: what attempts that are over may leave here, and for how long.
    """

    root: Path
    node: str
    cluster: str
    simulate_gpus: int | None = None
    checkpoint_root: Path | None = None
    caches: Bounds = field(default_factory=Bounds)
    left: Bounds = USUAL

    @classmethod
    def from_env(cls, cluster: str, environ: Mapping[str, str]) -> AgentConfig:
        """Read QD_NODE_STATE, QD_NODE_NAME, QD_SIMULATE_GPUS, QD_CHECKPOINT_ROOT, QD_CACHE_SIZE
        ("50GiB"), QD_CACHE_AGE ("30d"), QD_LEFT_SIZE and QD_LEFT_AGE; an unset or empty one means its
        default. Raises InvalidInput for a number that is none."""
        state, checkpoints = environ.get("QD_NODE_STATE"), environ.get("QD_CHECKPOINT_ROOT")
        simulate = environ.get("QD_SIMULATE_GPUS")
        if simulate and not simulate.isdecimal():
            raise InvalidInput(f"QD_SIMULATE_GPUS is '{simulate}'", "Set it to a number such as 8.")
        return cls(
            caches=_bounds(environ, "QD_CACHE", Bounds()),
            left=_bounds(environ, "QD_LEFT", USUAL),
            root=Path(state).expanduser().absolute() if state else places(environ).node,
            node=environ.get("QD_NODE_NAME") or socket.gethostname(),
            cluster=cluster,
            simulate_gpus=int(simulate) if simulate else None,
            checkpoint_root=Path(checkpoints).expanduser().absolute() if checkpoints else None,
        )


def _bounds(environ: Mapping[str, str], name: str, usual: Bounds) -> Bounds:
    """The bounds that NAME_SIZE and NAME_AGE give. Raises InvalidInput."""
    size, age = environ.get(f"{name}_SIZE"), environ.get(f"{name}_AGE")
    try:
        return Bounds(
            parse_size(size) if size else usual.size, parse_duration(age) if age else usual.age
        )
    except ValueError as error:
        hint = "They are a size such as 50GiB, and a time such as 30d."
        raise InvalidInput(f"{name}_SIZE or {name}_AGE: {error}", hint) from error
