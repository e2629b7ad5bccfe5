"""Ray and the network as the controller meets them: slow, lossy, forgetful, sometimes away.

A message may be lost before it acts or after, may come twice, and may come late. Nothing that a call
raises says anything about what runs on the nodes.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from agents.controller.nodes.fabric import Bundle, FabricNode
from jobs.base.errors import QuarterdeckError, Unreachable
from jobs.wire import messages as wire
from tests.sim.agent import Agent
from tests.sim.loop import VirtualLoop
from tests.sim.machine import Folder, Machine
from tests.sim.story import Story

TIMEOUTS = {
    "hello": 15.0,
    "stage": 30.0,
    "launch": 30.0,
    "stop": 15.0,
    "read_file": 30.0,
    "list_files": 60.0,
}
SYNC_SLACK = 15.0
"""As in `agents/fabric/ray.py`."""


@dataclass(slots=True, eq=False)
class Host:
    """A node as Ray has it: a machine, its place in the membership, and its agent."""

    machine: Machine
    agent: Agent | None = None
    listed: bool = True
    cut: bool = False
    incarnation: int = 1
    waiting: list[asyncio.Future[Any]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.machine.name

    @property
    def id(self) -> str:
        return f"{self.name}-{self.incarnation}"

    @property
    def answers(self) -> bool:
        return self.machine.up and not self.cut and self.agent is not None


@dataclass(slots=True)
class Weather:
    """How bad the network is now. Probabilities."""

    loss: float = 0.0
    late: float = 0.0  # that a message takes seconds
    twice: float = 0.02


class Network:
    """The hosts, the head's Ray, and the way between them."""

    def __init__(self, loop: VirtualLoop, story: Story, rng: random.Random) -> None:
        self.loop, self.story, self.rng = loop, story, rng
        self.hosts: dict[str, Host] = {}
        self.weather = Weather()
        self.head_up, self.generation = True, 1
        self.reserved: dict[str, list[tuple[str, Bundle]]] = {}  # name -> (host id, bundle)
        self.sent: deque[tuple[FabricNode, str, Any]] = deque(maxlen=60)  # that change something
        self.on_forget: Callable[[Folder], None] = lambda folder: None
        self.nowhere = contextvars.Context()  # messages outlive who sent them

    # -- hosts --------------------------------------------------------------------------------------

    def add(self, machine: Machine) -> None:
        host = self.hosts[machine.name] = Host(machine)
        machine.on_spawn = lambda: self._die_at_launch(host)
        self.start_agent(host)

    def _die_at_launch(self, host: Host) -> None:
        """The agent dies before it has seen whether its guard began, and is soon started again."""

        def die() -> None:
            self.story.tell(host.name, "agent is killed as it launches")
            self.kill_agent(host)
            self.later(self.rng.choice((0.1, 0.5)), self.start_agent, host)

        self.later(self.rng.uniform(0.0, 0.05), die)

    def start_agent(self, host: Host) -> None:
        if host.machine.up and host.agent is None:
            host.agent = Agent(host.machine, self.on_forget)
            self.story.tell(host.name, "agent starts")

    def kill_agent(self, host: Host) -> None:
        if host.agent is None:
            return
        host.agent.process.kill()
        host.agent = None
        waiting, host.waiting = host.waiting, []
        for future in waiting:
            if self.rng.random() < 0.7:  # else nobody tells, and the caller's patience ends
                self._answer(future, Unreachable(f"the agent of {host.name} has died"))

    def leave(self, host: Host) -> None:
        """Ray takes the node for dead. When it comes back it is another one, with a new agent."""
        if host.listed:
            self.story.tell("ray", f"{host.name} is taken for dead")
            host.listed = False
            self.kill_agent(host)

    def join(self, host: Host) -> None:
        if not host.listed and host.machine.up and not host.cut and self.head_up:
            host.listed, host.incarnation = True, host.incarnation + 1
            self.story.tell("ray", f"{host.name} joins as {host.id}")
            self.start_agent(host)

    def renew(self) -> None:
        """The head's Ray was lost and started anew: it knows nothing, and every node joins again."""
        self.generation += 1
        self.reserved.clear()
        for host in self.hosts.values():
            self.leave(host)

    # -- messages -----------------------------------------------------------------------------------

    def delay(self) -> float:
        if self.weather.late and self.rng.random() < self.weather.late:
            return self.rng.uniform(0.5, 25.0)
        return self.rng.random() * 0.02

    def lost(self) -> bool:
        return bool(self.weather.loss) and self.rng.random() < self.weather.loss

    def later(self, seconds: float, call: Callable[..., Any], *args: Any) -> None:
        """On nobody's account."""
        self.loop.call_at(self.loop.time() + seconds, call, *args, context=self.nowhere)

    def replay(self) -> None:
        """What was sent of late comes once more, in its order."""
        for number, (node, method, args) in enumerate(self.sent):
            self.later(0.05 * number, self._deliver, node, method, args, None)

    async def call(self, node: FabricNode, timeout: float, method: str, *args: Any) -> Any:
        """Call a node's agent. Raises Unreachable, or what the agent raised."""
        future: asyncio.Future[Any] = self.loop.create_future()
        if method in ("stage", "launch", "stop"):
            self.sent.append((node, method, args))
        if not self.lost():
            self.later(self.delay(), self._deliver, node, method, args, future)
            if self.rng.random() < self.weather.twice:
                after = self.rng.choice((0.05, 2.0, 40.0))
                self.later(after, self._deliver, node, method, args, None)
        try:
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError:
            raise Unreachable(f"no answer to '{method}' in {timeout:g} s") from None

    def _deliver(
        self, node: FabricNode, method: str, args: Any, future: asyncio.Future[Any] | None
    ) -> None:
        host = self.hosts[node.name]
        if not host.answers or host.id != node.id or host.agent is None:
            if future is not None and self.rng.random() < 0.6:
                self._answer(future, Unreachable(f"the agent of {node.name} is unavailable"))
            return
        if future is not None:
            host.waiting.append(future)
        host.agent.process.spawn(self._serve(host, host.agent, method, args, future))

    async def _serve(
        self,
        host: Host,
        agent: Agent,
        method: str,
        args: Any,
        future: asyncio.Future[Any] | None,
    ) -> None:
        try:
            value = await getattr(agent, method)(*args)
        except QuarterdeckError as error:
            value = error
        except Exception as error:
            self.story.violated(f"the model of the agent broke in {method}: {error!r}")
            return
        if method in ("launch", "stop") or isinstance(value, QuarterdeckError):
            what = value.message if isinstance(value, QuarterdeckError) else value["state"]
            again = " (again)" if future is None else ""
            request = args[0] if args and isinstance(args[0], dict) else {}
            name = f"{request.get('key', '')} e{request.get('epoch', '')}"
            self.story.tell(host.name, f"{method} {name}{again}: {what}")
        if future is not None:
            if future in host.waiting:
                host.waiting.remove(future)
            if not host.cut and not self.lost():
                self._answer(future, value)

    def _answer(self, future: asyncio.Future[Any], value: Any) -> None:
        def settle() -> None:
            if not future.done():
                if isinstance(value, QuarterdeckError):
                    future.set_exception(value)
                else:
                    future.set_result(value)

        self.later(self.delay(), settle)


class SimFabric:
    """Implements `agents.controller.nodes.fabric.Fabric` for one controller process."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._joined = 0
        self._doubted = False

    @property
    def state(self) -> str:
        joined = self._joined == self._network.generation
        return "connected" if joined and not self._doubted else "connecting"

    async def connect(self) -> None:
        await asyncio.sleep(0.5)
        if not self._network.head_up:
            raise Unreachable("Ray is not running")
        self._joined, self._doubted = self._network.generation, False

    async def _ask(self, act: Callable[[], Any], patience: float = 0.0) -> Any:
        """A request to the head, done after a while even if the asker is gone by then."""
        network = self._network
        if self._joined != network.generation:
            raise Unreachable("not connected to Ray")
        future: asyncio.Future[Any] = network.loop.create_future()
        joined = self._joined

        def do() -> None:
            if network.head_up and network.generation == joined:
                value = act()
                if not network.lost() and not future.done():
                    future.set_result(value)

        if not network.lost():
            wait = network.delay() + network.rng.choice((0.0, 0.0, 0.0, patience))
            network.later(min(wait, 4.0), do)
        try:
            async with asyncio.timeout(5.0):
                result = await future
        except TimeoutError:
            self._doubted = True
            raise Unreachable("Ray does not answer") from None
        self._doubted = False
        return result

    async def nodes(self) -> list[FabricNode]:
        def act() -> list[FabricNode]:
            return [
                FabricNode(
                    name=host.name,
                    address="10.0.0.1",
                    id=host.id,
                    cpus=host.machine.cpus,
                    gpus=float(len(host.machine.gpus)),
                    memory=64 << 30,
                )
                for host in self._network.hosts.values()
                if host.listed
            ]

        found: list[FabricNode] = await self._ask(act)
        return found

    async def agent(self, node: FabricNode) -> wire.AgentClient:
        return Client(self._network, self, node)

    def check(self) -> None:
        """Raises Unreachable when the connection is to a Ray that is no more."""
        if self._joined != self._network.generation:
            raise Unreachable("not connected to Ray")

    async def reserve(self, name: str, bundles: list[Bundle]) -> bool:
        return bool(await self._ask(lambda: self._reserve(name, bundles), 2.0))

    def _reserve(self, name: str, bundles: list[Bundle]) -> bool:
        network = self._network
        known = network.reserved.get(name)
        if known is not None:
            if self._whole(known):
                return True
            del network.reserved[name]
            return False
        wanted = []
        for bundle in bundles:
            host = network.hosts[bundle.node]
            used = [
                other
                for group in network.reserved.values()
                for host_id, other in group
                if host_id == host.id
            ]
            cpus = bundle.cpus + sum(other.cpus for other in used)
            gpus = bundle.gpus + sum(other.gpus for other in used)
            if not host.listed or cpus > host.machine.cpus or gpus > len(host.machine.gpus):
                return False
            wanted.append((host.id, bundle))
        network.reserved[name] = wanted
        network.story.tell("ray", f"reserves {name}")
        return True

    def _whole(self, group: list[tuple[str, Bundle]]) -> bool:
        """Whether all of its nodes are still the ones it was made on."""
        hosts = self._network.hosts
        return all(hosts[b.node].listed and hosts[b.node].id == host_id for host_id, b in group)

    async def release(self, name: str) -> None:
        def act() -> None:
            if self._network.reserved.pop(name, None) is not None:
                self._network.story.tell("ray", f"releases {name}")

        await self._ask(act)

    async def reservations(self) -> set[str]:
        found: set[str] = await self._ask(lambda: set(self._network.reserved))
        return found

    async def close(self) -> None:
        self._joined = 0


class Client:
    """jobs.wire.messages.AgentClient over the network."""

    def __init__(self, network: Network, fabric: SimFabric, node: FabricNode) -> None:
        self._network, self._fabric, self._node = network, fabric, node

    async def _call(self, timeout: float, method: str, *args: Any) -> Any:
        self._fabric.check()
        return await self._network.call(self._node, timeout, method, *args)

    async def sync(self, request: wire.SyncRequest) -> wire.SyncReply:
        reply: wire.SyncReply = await self._call(request["wait"] + SYNC_SLACK, "sync", request)
        return reply

    def __getattr__(self, method: str) -> Any:
        async def call(*args: Any) -> Any:
            return await self._call(TIMEOUTS.get(method, 30.0), method, *args)

        return call
