"""One history: a cluster, users, faults, and then calm weather in which everything has to end."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import logging
import random
from collections.abc import Coroutine
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest import mock

from agents.controller.commands.requests import SubmitRequest, Submitted
from agents.controller.commands.submitting import submit
from agents.controller.controller import Controller
from agents.controller.stores import database
from jobs.base import names
from jobs.base.errors import Conflict, NotFound, StorageFull, Unreachable
from jobs.spec.job import JobSpec
from jobs.store.writing import Caller
from tests.sim.checks import Checks
from tests.sim.fabric import Network
from tests.sim.faults import TROUBLE, Troubles
from tests.sim.head import Head
from tests.sim.loop import Stuck, VirtualLoop
from tests.sim.machine import Machine
from tests.sim.story import Story, Violation

CALM = 400.0
"""Virtual seconds after the last fault in which everything has to end. The longest way: a lease and its
grace, several restarts with their back-off of up to a minute each, and ranks of half a minute."""
USERS = (Caller("mira", 1000), Caller("jon", 1001))


@dataclass(frozen=True, slots=True)
class Outcome:
    """A history that is over. `violation` is None when nothing was wrong."""

    seed: int
    story: str
    violation: Violation | None
    seconds: float  # virtual

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.story.encode()).hexdigest()[:16]


def run(seed: int, *, usual: bool = False) -> Outcome:
    """Play the history of a seed. `usual`: its jobs are as most people leave them (`World`)."""
    collecting = gc.isenabled()
    gc.disable()  # what is freed in the middle of a history would act at a moment that no seed names
    loop = VirtualLoop(random.Random(f"{seed}/threads"))
    world = World(seed, loop, usual=usual)
    logger = logging.getLogger("agents")
    handler, propagate = _Listener(world.story), logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        asyncio.set_event_loop(loop)
        loop.set_exception_handler(lambda loop, context: None)
        begun = loop.time()
        drawn = random.Random(f"{seed}/identities")
        with (
            mock.patch.object(database, "time", SimpleNamespace(monotonic=loop.time)),
            mock.patch.object(names, "new_identity", lambda: f"{drawn.getrandbits(32):08x}"),
        ):
            loop.run_until_complete(world.play())
        return Outcome(seed, str(world.story), world.story.violation, loop.time() - begun)
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
        loop.finish()
        asyncio.set_event_loop(None)
        if collecting:
            gc.enable()


class _Listener(logging.Handler):
    """Tells the story what our code logs; an internal error is a violation."""

    def __init__(self, story: Story) -> None:
        super().__init__(logging.WARNING)
        self._story = story

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            self._story.violated(f"internal error in {record.getMessage()}: {error!r}")
        else:
            self._story.tell("log", record.getMessage())


USUAL = {"grace": 10.0, "notice": 0.0, "on_node_loss": "restart", "lease": 5.0, "timeout": None}
"""What most jobs have, since nobody says otherwise: a grace that is longer than the margin behind leases. The
lease is a short one, so that it runs out in the time that a history has, unless that is a gentle one."""


class World:
    """Args:
    usual: all jobs have the grace that is the default, and restart when their node is lost. Drawn with
        everything else, that comes together in fewer than one history in a thousand.
    """

    def __init__(self, seed: int, loop: VirtualLoop, *, usual: bool = False) -> None:
        self.usual = usual
        self.loop, self.rng = loop, random.Random(f"{seed}/world")
        self.seed = seed
        self.story = Story(loop.time)
        self.network = Network(loop, self.story, random.Random(f"{seed}/network"))
        self.checks = Checks(self.network, self.story, loop.time)
        self.head = self.checks.head = Head(self.network, self.checks.written)
        self.network.on_forget = self.checks.forgotten
        # Small faults, one at a time, each shorter than any lease: nothing of it may hurt a job.
        self.gentle = self.rng.random() < 0.25
        self._tasks: list[asyncio.Task[None]] = []
        self._submitted = 0
        for number in range(1, self.rng.randint(1, 3) + 1):
            cpus, gpus = self.rng.choice((2.0, 4.0)), self.rng.choice((0, 1, 2))
            name = f"n{number}"
            rng = random.Random(f"{seed}/{name}")
            machine = Machine(name, cpus, gpus, loop, self.story, rng)
            machine.on_start = self.checks.started
            if self.gentle:
                machine.failing = 0.0
            self.network.add(machine)
        self.hosts = list(self.network.hosts.values())
        self.troubles = Troubles(
            loop=loop,
            story=self.story,
            network=self.network,
            head=self.head,
            checks=self.checks,
            gentle=self.gentle,
            rng=self.rng,
        )

    # -- the course of a history --------------------------------------------------------------------

    async def play(self) -> None:
        self.head.start()
        self._begin(self._keep_watch())
        for _ in range(self.rng.randint(1, 3)):
            self._begin(self._user())
        for _ in range(1 if self.gentle else self.rng.choice((0, 1, 2, 3))):
            self._begin(self.troubles.begin())
        await self._sleep(TROUBLE)
        self.troubles.calm = True
        self.story.tell("world", "calm begins")
        self.troubles.heal()
        helper = self.loop.create_task(self.troubles.look_after_nodes())
        await self._until_over()
        helper.cancel()
        if self.story.violation is None:
            self.checks.finally_(unhurt=self.gentle)

    async def _until_over(self) -> None:
        """Until nothing is left to be done. It must not take for ever."""
        end = self.loop.time() + CALM
        while self.story.violation is None:
            waiting = [task for task in self._tasks if not task.done()]
            left = self.checks.unfinished()
            if not left and len(waiting) == 1:  # the watch
                return
            if self.loop.time() > end:
                reasons = self.head.controller.reconciler.reasons if self.head.controller else {}
                self.story.violated(f"it never ends: {', '.join(left)}; reasons: {reasons}")
            self.troubles.heal()
            await asyncio.sleep(1.0)

    async def _sleep(self, seconds: float) -> None:
        """As long as nothing has gone wrong."""
        end = self.loop.time() + seconds
        while self.story.violation is None:
            left = end - self.loop.time()
            if left <= 0:
                return
            await asyncio.sleep(min(1.0, left))

    async def _keep_watch(self) -> None:
        while True:
            self.checks.memory()
            await asyncio.sleep(0.7)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(self.loop.create_task(work))

    # -- people -------------------------------------------------------------------------------------

    async def _user(self) -> None:
        """Submits a job, and perhaps meddles with it."""
        rng = self.rng
        await asyncio.sleep(rng.uniform(0.0, TROUBLE / 4))
        self._submitted += 1
        caller, key = rng.choice(USERS), f"key{self._submitted}"
        spec = self._spec()
        request = SubmitRequest(spec=spec, key=key)
        asked = Submitted(request, JobSpec.from_json(spec))
        number: int | None = None
        while number is None:
            try:
                view = await self.head.ask(
                    lambda c: submit(c, caller, asked),
                    rng.choice((0.2, 10.0)),
                )
                number = int(view["id"][1:])
            except (Unreachable, StorageFull):
                await asyncio.sleep(rng.uniform(0.5, 3.0))
        if number in self.checks.acknowledged:
            self.story.violated(f"two keys gave one job: j{number}")
        self.checks.acknowledged.add(number)
        self.story.tell(caller.user, f"submitted j{number}: {self._words(spec)}")
        if self.gentle:
            return
        await asyncio.sleep(rng.expovariate(1 / 15))
        if rng.random() < 0.4:
            await self._insist(caller, number, "cancel")
            await asyncio.sleep(rng.uniform(0.0, 20.0))
        if rng.random() < 0.3:
            await self._insist(caller, number, "retry")

    async def _insist(self, caller: Caller, number: int, what: str) -> None:
        """Ask until there is an answer."""

        def request(controller: Controller) -> Any:
            return getattr(controller.reconciler, what)(number, caller)

        while True:
            if (
                what == "retry"
            ):  # one that got no answer in time may have been carried out, and ended
                self.checks.retried[number] += 1
            try:
                await self.head.ask(request, self.rng.choice((0.2, 10.0)))
                self.story.tell(caller.user, f"asked to {what} j{number}")
                return
            except (Unreachable, StorageFull):
                await asyncio.sleep(self.rng.uniform(0.2, 2.0))
            except (Conflict, NotFound) as error:
                if what == "retry":
                    self.checks.retried[number] -= 1
                self.story.tell(caller.user, f"may not {what} j{number}: {error.message}")
                return

    def _spec(self) -> dict[str, Any]:
        """A job that some nodes of this cluster can run."""
        rng = self.rng
        nodes = rng.randint(1, len(self.hosts))
        hosts = sorted(self.hosts, key=lambda host: -len(host.machine.gpus))[:nodes]
        gpus = rng.choice((0, len(hosts[-1].machine.gpus)))
        cpus = rng.choice((1.0, min(host.machine.cpus for host in self.hosts)))
        restarts = rng.choice((0, 0, 1, 2))
        action = rng.choice(("warn", "fail", "restart" if restarts else "warn"))
        spec = JobSpec.from_json(
            {
                "command": "train",
                "nodes": nodes,
                "procs_per_node": rng.choice((1, 1, 2)),
                "resources": {"cpu": cpus, "gpu": float(gpus)},
                "max_restarts": restarts,
                "lease": 30.0 if self.gentle else rng.choice((5.0, 10.0, 20.0)),
                "on_node_loss": rng.choice((None, None, "restart", "wait", "wait")),
                "grace": rng.choice((0.5, 4.0, 10.0)),  # the last is what jobs have by default
                "notice": rng.choice((0.0, 2.0)),
                "timeout": None if self.gentle else rng.choice((None, None, None, 12.0)),
                "on_stall": {"action": action, "after": rng.choice((None, 8.0))},
                "outputs": rng.choice(({}, {"weights": "w.bin"})),
                "seed": rng.randrange(2**31),
                **(USUAL if self.usual and not self.gentle else {}),
            }
        )
        return spec.to_json()

    @staticmethod
    def _words(spec: dict[str, Any]) -> str:
        needs = spec["resources"]
        return (
            f"{spec['nodes']} nodes x {needs['cpu']:g} CPUs, {needs['gpu']:g} GPUs, "
            f"lease {spec['lease']:g} ({spec['on_node_loss']}), grace {spec['grace']:g}, "
            f"notice {spec['notice']:g}, restarts {spec['max_restarts']}"
        )


__all__ = ["Outcome", "Stuck", "World", "run"]
