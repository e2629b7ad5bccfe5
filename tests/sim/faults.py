"""What goes wrong in a history, and how it gets well again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

from agents.controller.commands import confirming, draining, maintaining, straying
from agents.controller.controller import Controller
from agents.controller.core.doubts import FOREVER
from jobs.base.errors import Conflict, NotFound, StorageFull, Unreachable
from jobs.store.writing import Caller
from tests.sim.checks import Checks
from tests.sim.fabric import Host, Network
from tests.sim.head import Head, faults
from tests.sim.loop import VirtualLoop
from tests.sim.machine import Folder
from tests.sim.story import Story

TROUBLE = 40.0
"""Virtual seconds in which faults begin."""
OPERATOR = Caller("olga", 0)


class Troubles:
    """Args:
    gentle: only small faults, one at a time, each shorter than any lease: none may hurt a job.
    """

    def __init__(
        self,
        *,
        loop: VirtualLoop,
        story: Story,
        network: Network,
        head: Head,
        checks: Checks,
        gentle: bool,
        rng: random.Random,
    ) -> None:
        self.loop, self.story, self.network, self.head = loop, story, network, head
        self.checks, self.gentle = checks, gentle
        self.rng = rng
        self.calm = self.restored = self.maintained = False

    @property
    def hosts(self) -> list[Host]:
        return list(self.network.hosts.values())

    async def ask(self, request: Callable[[Controller], Awaitable[Any]]) -> Any:
        """Ask the controller until it answers. Gives None when it says no."""
        while True:
            try:
                return await self.head.ask(request, 10.0)
            except (Unreachable, StorageFull):
                await asyncio.sleep(self.rng.uniform(0.2, 2.0))
            except (Conflict, NotFound):
                return None

    async def begin(self) -> None:
        """Some faults, one after another."""
        always = [
            self._kill_controller,
            self._kill_controller_in_the_middle,
            self._stop_controller,
            self._kill_agent,
            self._cut,
            self._lose_ray,
            self._pause_ray,
            self._set_clock,
            self._drain,
            self._maintain,
        ]
        rough = [
            *always,
            self._kill_controller,
            self._kill_controller_in_the_middle,
            self._kill_agent_in_the_middle,
            self._kill_guard,
            self._kill_rank,
            self._power_cycle,
            self._cut,
            self._bad_weather,
            self._bad_weather,
            self._no_storage,
            self._slow_disk,
            self._slow_disk,
            self._replay,
            self._replay,
            self._stop_rank,
            self._stop_rank,
            self._unfit,
            self._lose_for_good,
            self._maintain,
            self._maintain,
            self._restore_registry,
        ]
        for _ in range(self.rng.randint(1, 3)):
            await asyncio.sleep(self.rng.uniform(0.5, TROUBLE / 3))
            if self.calm:
                return
            await self.rng.choice(always if self.gentle else rough)()

    def _pick(self, *seconds: float) -> float:
        """How long a fault lasts: the shortest, when the history is gentle."""
        return seconds[0] if self.gentle else self.rng.choice(seconds)

    def heal(self) -> None:
        """The weather is good, and what is down is started again, but for what is lost for good."""
        network = self.network
        network.weather.loss = network.weather.late = 0.0
        network.weather.twice = 0.0
        network.head_up = True
        faults.clear()
        self.head.logs.full = False
        self.loop.drag = 1.0
        self.head.start()
        for host in self.hosts:
            host.cut = host.machine.unfit = False
            self._power_on(host)
            network.join(host)
            network.start_agent(host)

    async def look_after_nodes(self) -> None:
        """What a person does when all is calm: put nodes back, and cancel what cannot run any more."""
        while True:
            await asyncio.sleep(15.0)
            controller = self.head.controller
            if controller is None:
                continue
            for node in list(controller.cluster.nodes.values()):
                if node.drained or node.quarantine:
                    await self._set_drained(node.name, drained=False)
            if controller.strays.found():
                await self.ask(lambda c: straying.forget(c, OPERATOR))
            await self._confirm_dead()
            for number in self.checks.waiting():
                live = controller.reconciler.live.get(number)
                held = live is not None and live.held_until > controller.now() + FOREVER / 2
                if self.checks.lost or held:
                    await self.ask(lambda c, n=number: c.reconciler.cancel(n, OPERATOR))  # type: ignore[misc]

    async def _confirm_dead(self) -> None:
        """Say of nodes that are lost for good that they are dead."""
        for name in sorted(self.checks.lost):
            if await self.ask(lambda c, n=name: confirming.confirm_dead(c, n, OPERATOR)):  # type: ignore[misc]
                self.story.tell(OPERATOR.user, f"confirmed that {name} is dead")

    async def _set_drained(self, name: str, *, drained: bool) -> None:
        if not drained:
            self.checks.drained.pop(name, None)
        done = await self.ask(
            lambda c: draining.set_drained(c, name, OPERATOR, drained=drained, reason="service")
        )
        if done is not None:
            self.story.tell(OPERATOR.user, f"{'drained' if drained else 'undrained'} {name}")
            if drained:
                self.checks.drained[name] = self.loop.time()

    async def _kill_controller(self) -> None:
        self.head.crash(power=self.rng.random() < 0.2)
        await asyncio.sleep(self._pick(0.5, 3.0, 40.0))
        self.head.start()

    async def _kill_controller_in_the_middle(self) -> None:
        self.head.crash_after(self.rng.randint(1, 400))
        await asyncio.sleep(self._pick(3.0, 20.0))
        self.head.crash_after(None)  # it had too little to do; nobody would start it again later
        self.head.start()

    async def _stop_controller(self) -> None:
        await self.head.stop()
        await asyncio.sleep(self._pick(0.5, 3.0))
        self.head.start()

    async def _kill_agent(self) -> None:
        host = self.rng.choice(self.hosts)
        self.story.tell(host.name, "agent is killed")
        self.network.kill_agent(host)
        await asyncio.sleep(self._pick(0.3, 2.0, 15.0))
        self.network.start_agent(host)

    async def _kill_agent_in_the_middle(self) -> None:
        """Between what it does to launch and what it knows of it."""
        machine = self.rng.choice(self.hosts).machine
        machine.fragile = True
        await asyncio.sleep(15.0)
        machine.fragile = False

    def _running(self) -> list[tuple[Host, Folder]]:
        return [
            (host, folder)
            for host in self.hosts
            for folder in host.machine.folders.values()
            if folder.guard is not None and folder.guard.alive
        ]

    async def _kill_guard(self) -> None:
        if found := self._running():
            host, folder = self.rng.choice(found)
            assert folder.guard is not None
            self.story.tell(host.name, f"the guard of {folder.key} is killed")
            folder.guard.kill()

    async def _kill_rank(self) -> None:
        if found := self._running():
            host, folder = self.rng.choice(found)
            rank = self.rng.choice(folder.ranks)
            self.story.tell(host.name, f"rank {rank.number} of {folder.key} is killed")
            rank.kill(self.loop.time(), 9)
            assert folder.guard is not None
            folder.guard.poke()

    async def _power_cycle(self) -> None:
        host = self.rng.choice(self.hosts)
        if not host.machine.up:
            return
        self.story.tell(host.name, "loses power")
        host.machine.power_off()
        self.network.kill_agent(host)
        seconds = self._pick(3.0, 30.0, 60.0)
        await self._miss(host, seconds)
        self._power_on(host)
        self.network.join(host)

    def _power_on(self, host: Host) -> None:
        if host.machine.up or host.name in self.checks.lost:
            return
        self.network.leave(host)  # Ray cannot have kept it
        host.machine.power_on()
        self.story.tell(host.name, "is back")

    async def _cut(self) -> None:
        host = self.rng.choice(self.hosts)
        self.story.tell("network", f"{host.name} is cut off")
        host.cut = True
        await self._miss(host, self._pick(2.0, 8.0, 25.0, 50.0))
        if host.cut:
            self.story.tell("network", f"{host.name} is reached again")
        host.cut = False
        self.network.join(host)

    async def _miss(self, host: Host, seconds: float) -> None:
        """Ray takes a silent node for dead after a while, if the silence lasts."""
        patience = self._pick(6.0, 15.0, 55.0)
        await asyncio.sleep(min(patience, seconds))
        if seconds > patience and (host.cut or not host.machine.up):
            self.network.leave(host)
            await asyncio.sleep(seconds - patience)

    async def _lose_ray(self) -> None:
        self.story.tell("ray", "is killed on all nodes")
        self.network.head_up = False
        self.network.renew()
        await asyncio.sleep(self._pick(4.0, 15.0))
        self.network.head_up = True
        for host in self.hosts:
            self.network.join(host)

    async def _pause_ray(self) -> None:
        self.story.tell("ray", "head does not answer")
        self.network.head_up = False
        await asyncio.sleep(self._pick(4.0, 20.0))
        self.network.head_up = True
        self.story.tell("ray", "head answers again")

    async def _bad_weather(self) -> None:
        weather, rng = self.network.weather, self.rng
        weather.loss, weather.late = rng.choice((0.05, 0.25)), rng.choice((0.0, 0.1, 0.3))
        weather.twice = rng.choice((0.02, 0.5, 0.9))
        self.story.tell("network", f"{weather.loss:g} lost, {weather.late:g} late")
        await asyncio.sleep(rng.choice((5.0, 20.0, 40.0)))
        weather.loss = weather.late = 0.0

    async def _no_storage(self) -> None:
        rng = self.rng
        what = rng.choice(("database or disk is full", "database is locked", ""))
        self.head.logs.full = not what or rng.random() < 0.5
        if what:
            faults.append(what)
        self.story.tell("head", f"{what or 'logs are full'}")
        await asyncio.sleep(rng.choice((2.0, 10.0, 30.0)))
        faults.clear()
        self.head.logs.full = False

    async def _restore_registry(self) -> None:
        """A backup is put in the registry's place: what came after it is unknown from there on."""
        if self.restored:  # a later backup after an earlier one would bring back what was lost
            return
        self.restored, copy = True, self.head.backup()
        self.maintained = False
        await asyncio.sleep(self.rng.choice((1.0, 6.0, 20.0)))
        if self.maintained:
            return  # it does not know what was granted ahead: an operator has to wait (docs/hosts.md)
        self.head.crash()
        self.head.restore(copy)
        self.checks.restored()
        await asyncio.sleep(self.rng.choice((0.5, 20.0)))
        self.head.start()

    async def _slow_disk(self) -> None:
        """And a node that comes and goes meanwhile, so that much is cut off while it is written down."""
        self.story.tell("head", "the disk is slow")
        self.loop.drag = self.rng.choice((5.0, 30.0))
        host = self.rng.choice(self.hosts)
        for _ in range(self.rng.choice((0, 2, 6))):
            await asyncio.sleep(self.rng.uniform(0.5, 3.0))
            self.network.leave(host)
            await asyncio.sleep(self.rng.uniform(0.1, 1.5))
            self.network.join(host)
        await asyncio.sleep(5.0)
        self.loop.drag = 1.0

    async def _replay(self) -> None:
        for _ in range(3):
            await asyncio.sleep(self.rng.uniform(0.5, 6.0))
            self.story.tell("network", "what was sent comes once more")
            self.network.replay()

    async def _set_clock(self) -> None:
        """The wall clock of the head is set, and perhaps set back."""
        for seconds in (self.rng.choice((3600.0, -3600.0)),) * self.rng.choice((1, 1, 2)):
            self.story.tell("head", f"the clock is set by {seconds:+.0f} s")
            self.head.ahead += seconds
            await asyncio.sleep(self._pick(4.0, 15.0))

    async def _drain(self) -> None:
        name = self.rng.choice(self.hosts).name
        await self._set_drained(name, drained=True)
        await asyncio.sleep(self._pick(5.0, 20.0))
        await self._set_drained(name, drained=False)

    async def _maintain(self) -> None:
        """The head is away for a while, as was announced, and perhaps for less time than that."""
        seconds = self.rng.choice((60.0, 90.0))
        self.maintained = True
        if await self.ask(lambda c: maintaining.begin(c, OPERATOR, seconds, "kernel")) is None:
            return
        self.story.tell(OPERATOR.user, f"began a maintenance of {seconds:g} s")
        host = self.rng.choice(self.hosts)
        cut = not self.gentle and self.rng.random() < 0.6  # a node does not come back with the head
        for _ in range(self.rng.choice((0, 1, 1, 2))):
            self.head.crash(power=self.rng.random() < 0.2)
            if cut:
                self.story.tell("network", f"{host.name} is cut off")
                host.cut = True
            await asyncio.sleep(self.rng.choice((1.0, 15.0, 40.0)))
            self.head.start()
            await asyncio.sleep(self.rng.choice((0.5, 5.0)))
        if self.rng.random() < 0.7:
            await self.ask(lambda c: maintaining.end(c, OPERATOR))
            self.story.tell(OPERATOR.user, "ended the maintenance")
        if cut:
            await self._miss(host, self._pick(15.0, 50.0))
            self.story.tell("network", f"{host.name} is reached again")
            host.cut = False
            self.network.join(host)

    async def _unfit(self) -> None:
        """What is looked at before a gang starts is not as it should be on this node."""
        machine = self.rng.choice(self.hosts).machine
        self.story.tell(machine.name, "is not fit for work")
        machine.unfit = True
        await asyncio.sleep(self._pick(5.0, 20.0))
        machine.unfit = False

    async def _stop_rank(self) -> None:
        """SIGSTOP, and much later SIGCONT."""
        if found := self._running():
            host, folder = self.rng.choice(found)
            rank = self.rng.choice(folder.ranks)
            if not rank.alive(self.loop.time()) or rank.stopped_at is not None:
                return
            self.story.tell(host.name, f"rank {rank.number} of {folder.key} is stopped")
            rank.stop(self.loop.time())
            await asyncio.sleep(self._pick(20.0, 60.0))
            rank.go_on(self.loop.time())
            assert folder.guard is not None
            folder.guard.poke()

    async def _lose_for_good(self) -> None:
        """A machine that nobody will see again."""
        host = self.rng.choice(self.hosts)
        if len(self.hosts) < 2 or self.checks.lost or not host.machine.up:
            return
        self.story.tell(host.name, "is lost for good")
        self.checks.lost.add(host.name)
        host.machine.power_off()
        self.network.kill_agent(host)
        await self._miss(host, 60.0)
        self.network.leave(host)
        if self.rng.random() < 0.5:
            await self._confirm_dead()
