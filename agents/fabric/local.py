"""The fabric without Ray: agents in this process, for tests. Keeps to the same contract."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any

from agents.controller.nodes.fabric import Bundle, FabricNode
from jobs.base.errors import Unreachable
from jobs.wire.messages import AgentClient


@dataclass(slots=True)
class LocalNode:
    """A node of a LocalFabric.

    Args:
        agent: usually a real NodeAgent, started by the test.
        reachable: False: calls to its agent raise Unreachable, and it says nothing about what runs.
        member: False: the fabric does not list it, as after its death.
        incarnation: grows when the test lets the node come back; part of its id.
    """

    name: str
    cpus: float
    gpus: float
    agent: AgentClient
    reachable: bool = True
    member: bool = True
    incarnation: int = 1


class LocalFabric:
    """Implements `agents.controller.nodes.fabric.Fabric`.

    Tests turn its switches: `down` (the whole fabric does not answer), `node(name).reachable` and
    `.member`, `forget()` (it came back and knows no reservation).
    """

    def __init__(self, nodes: list[LocalNode]) -> None:
        self._nodes = {node.name: node for node in nodes}
        self._reserved: dict[str, list[Bundle]] = {}
        self._connected = False
        self.down = False

    def node(self, name: str) -> LocalNode:
        return self._nodes[name]

    def forget(self) -> None:
        """Be a new cluster: nothing is reserved, nobody is connected, every node is incarnated anew."""
        self._reserved.clear()
        self._connected = False
        for node in self._nodes.values():
            node.incarnation += 1

    @property
    def state(self) -> str:
        return "connected" if self._connected and not self.down else "connecting"

    async def connect(self) -> None:
        if self.down:
            raise Unreachable("the fabric is down")
        self._connected = True

    def check(self) -> None:
        """Raises Unreachable when nothing can be asked now."""
        if self.down or not self._connected:
            raise Unreachable("not connected to the fabric")

    async def nodes(self) -> list[FabricNode]:
        self.check()
        return [
            FabricNode(
                name=node.name,
                address="127.0.0.1",
                id=f"{node.name}-{node.incarnation}",
                cpus=node.cpus,
                gpus=node.gpus,
                memory=8 << 30,
            )
            for node in self._nodes.values()
            if node.member
        ]

    async def agent(self, node: FabricNode) -> AgentClient:
        self.check()
        client: AgentClient = _Guarded(self, self._nodes[node.name])
        return client

    async def reserve(self, name: str, bundles: list[Bundle]) -> bool:
        self.check()
        if name in self._reserved:
            return True
        wanted = self._use([*self._reserved.values(), bundles])
        for node, (cpus, gpus) in wanted.items():
            here = self._nodes.get(node)
            if here is None or not here.member or cpus > here.cpus or gpus > here.gpus:
                return False
        self._reserved[name] = [replace(bundle) for bundle in bundles]
        return True

    @staticmethod
    def _use(groups: list[list[Bundle]]) -> dict[str, tuple[float, float]]:
        """CPUs and GPUs that these bundles take of each node, rounded as Ray counts (1/10000)."""
        use: dict[str, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
        for bundle in (bundle for group in groups for bundle in group):
            cpus, gpus = use[bundle.node]
            use[bundle.node] = round(cpus + bundle.cpus, 4), round(gpus + bundle.gpus, 4)
        return use

    async def release(self, name: str) -> None:
        self.check()
        self._reserved.pop(name, None)

    async def reservations(self) -> set[str]:
        self.check()
        return set(self._reserved)

    async def close(self) -> None:
        self._connected = False


class _Guarded:
    """An agent behind the switches of its fabric: looked at before a call and after it, since a call
    whose answer is lost has been made all the same."""

    def __init__(self, fabric: LocalFabric, node: LocalNode) -> None:
        self._fabric, self._node = fabric, node

    def __getattr__(self, method: str) -> Any:
        async def call(*args: Any) -> Any:
            self._check()
            value = await getattr(self._node.agent, method)(*args)
            self._check()
            return value

        return call

    def _check(self) -> None:
        self._fabric.check()
        if not (self._node.reachable and self._node.member):
            raise Unreachable(f"the agent of {self._node.name} does not answer")
