"""The fabric as the controller sees it: membership, reservations, and a way to call agents.

Ray implements it (`agents/fabric/ray.py`); tests use `agents/fabric/local.py`, which runs real agents
in this process. The fabric is disposable: whatever it forgets is derived again from the database.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from jobs.wire.messages import AgentClient


@dataclass(frozen=True, slots=True)
class FabricNode:
    """A member. `id` is the fabric's own name for this incarnation of the node; a node that comes
    back has a new one. `conflict` says which other host has taken its name, if one has."""

    name: str
    address: str
    id: str
    cpus: float
    gpus: float
    memory: int
    labels: dict[str, str] = field(default_factory=dict)
    conflict: str = ""


@dataclass(frozen=True, slots=True)
class Bundle:
    """What one node gives to a gang."""

    node: str
    cpus: float
    gpus: float


class Fabric(Protocol):
    """Every call may raise errors.Unreachable, which says nothing about what runs on the nodes."""

    @property
    def state(self) -> str:
        """ "connected" or "connecting"."""
        ...

    async def connect(self) -> None:
        """Join the cluster, or join it again after it was lost. Returns when calls can be made."""
        ...

    async def nodes(self) -> list[FabricNode]:
        """Members that the fabric believes alive."""
        ...

    async def agent(self, node: FabricNode) -> AgentClient:
        """The agent of a node, started if it is not there. One per node, whoever asks."""
        ...

    async def reserve(self, name: str, bundles: list[Bundle]) -> bool:
        """Reserve all of it or nothing; True when granted. Idempotent by name."""
        ...

    async def release(self, name: str) -> None:
        """Give a reservation back. Unknown names are fine."""
        ...

    async def reservations(self) -> set[str]:
        """Names of our reservations that the fabric holds."""
        ...

    async def close(self) -> None: ...
