"""A machine that runs ranks: its clock, its disk, its guards. A model of `agents/node/guard/guard.py`.

A rank follows a script that is chosen when it starts: how long it runs, how it ends, whether it hears
SIGTERM. Its log and metrics follow from how long it has run, so nothing has to be written.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from jobs.wire.messages import LaunchPlan
from tests.sim.loop import Process, VirtualLoop
from tests.sim.story import Story

_LONGEST = 60.0
"""Seconds after which a guard looks again whatever it waits for."""


@dataclass(frozen=True, slots=True)
class Script:
    """What a rank will do. Times in seconds."""

    seconds: float
    exit_code: int
    deaf: bool  # only SIGKILL ends it early
    linger: float  # from SIGTERM to its end
    every: float  # between two log lines, and between two metric lines
    torn: bool  # killed, it leaves half a metric line


def write_script(seed: str, failing: float) -> Script:
    """The script of a rank, by seed alone. `failing`: how likely it fails by itself."""
    rng = random.Random(seed)
    return Script(
        seconds=rng.choice((0.3, 2.0, 8.0, 25.0, 50.0)) * rng.uniform(0.5, 1.5),
        exit_code=rng.choice((1, 3, 137)) if rng.random() < failing else 0,
        deaf=rng.random() < 0.25,
        linger=rng.uniform(0.0, 3.0),
        every=rng.choice((1.5, 9.0)),
        torn=rng.random() < 0.3,
    )


@dataclass(slots=True, eq=False)
class Rank:
    """A process. `ends_at` is virtual time; what it wrote follows from it."""

    number: int
    local_rank: int
    pid: int
    started_at: float
    script: Script
    ends_at: float
    exit_code: int | None
    signal: int | None = None
    told: bool = False  # whether its guard has reaped it
    stopped_at: float | None = None  # by SIGSTOP
    _left: float = 0.0  # seconds it had to run when it was stopped
    _lost: float = 0.0  # seconds it was stopped for before

    def alive(self, now: float) -> bool:
        return now < self.ends_at

    def kill(self, at: float, signal: int) -> None:
        """It ends at that time, unless it does before, or cannot hear the signal while it is stopped."""
        if self.stopped_at is not None and signal != 9:
            return
        if at < self.ends_at:
            self.ends_at, self.exit_code, self.signal = at, None, signal

    def stop(self, now: float) -> None:
        """SIGSTOP."""
        self.stopped_at, self._left, self.ends_at = now, self.ends_at - now, math.inf

    def go_on(self, now: float) -> None:
        """SIGCONT."""
        if self.stopped_at is not None and self.alive(now):
            self._lost += now - self.stopped_at
            self.stopped_at, self.ends_at = None, now + self._left

    def lines(self, now: float) -> int:
        """How many lines its log has, and its metrics file as well."""
        until = min(now, self.ends_at, math.inf if self.stopped_at is None else self.stopped_at)
        return 1 + int((until - self.started_at - self._lost) / self.script.every)

    def log(self, now: float) -> bytes:
        return b"".join(b"r%d says %d\n" % (self.number, i) for i in range(self.lines(now)))

    def metrics(self, now: float) -> bytes:
        whole = b"".join(
            b'{"n":"loss","s":%d,"t":%d.0,"v":0.5}\n' % (i, i) for i in range(self.lines(now))
        )
        killed = self.signal is not None and not self.alive(now)
        return whole + b'{"n":"lo' if killed and self.script.torn else whole


@dataclass(slots=True, eq=False)
class Folder:
    """An attempt's folder on the machine's disk; it outlives agents and guards."""

    key: str
    epoch: int
    plan: LaunchPlan | None = None
    staged: dict[str, Any] | None = None  # what staging came to: gpus, port
    refused: str | None = None
    started: bool = False
    lease: float = 0.0
    stop: dict[str, Any] | None = None  # grace, reason, at
    guard: Guard | None = None
    exit: dict[str, Any] | None = None
    ranks: list[Rank] = field(default_factory=list)  # as the guard's state file has them

    @property
    def job(self) -> str:
        return self.key.rpartition(".")[0]


class Machine:
    """Hardware with a disk and a clock since boot (seconds) that runs a little fast or slow."""

    def __init__(
        self, name: str, cpus: float, gpus: int, loop: VirtualLoop, story: Story, rng: random.Random
    ) -> None:
        self.name, self.cpus = name, cpus
        self.gpus = [f"{name}-gpu{i}" for i in range(gpus)]
        self.loop, self.story, self.rng = loop, story, rng
        self.rate = 1.0 + rng.uniform(-0.003, 0.003)
        self.lag = rng.choice((0.02, 0.3, 1.5))  # how late a guard may wake up
        self.failing = rng.choice((0.0, 0.1, 0.4))
        self.folders: dict[str, Folder] = {}
        self.closed: dict[str, int] = {}  # job -> newest epoch that is over for good
        self.on_start: Callable[[Machine, Folder], None] = lambda machine, folder: None
        self._pids = 100
        self.on_spawn: Callable[[], None] = lambda: None
        self.fragile = False  # its agent dies when it next starts a guard
        self.unfit = False  # what is looked at before a gang starts fails
        self.boot = 0
        self.power_on()

    def power_on(self) -> None:
        self.boot += 1
        self.up = True
        self._zero = self.loop.time() - self.rng.choice((10.0, 5_000.0))
        self.process = Process(self.loop, self.name)

    def power_off(self) -> None:
        """All at once; the disk stays."""
        self.up = False
        self.process.kill()
        for folder in self.folders.values():
            if folder.guard is not None:
                folder.guard.kill()

    @property
    def boot_id(self) -> str:
        return f"{self.name}-boot{self.boot}"

    def clock(self) -> float:
        return (self.loop.time() - self._zero) * self.rate

    def seconds_until(self, clock: float) -> float:
        """Virtual seconds until the machine's clock shows that."""
        return max(0.0, (clock - self.clock()) / self.rate)

    def spawn_guard(self, folder: Folder, begun: Callable[[], None]) -> None:
        """Start a guard program, which soon begins, whatever becomes of its starter."""

        def begin() -> None:
            process = Process(self.loop, f"guard-{folder.key}")
            if self.folders.get(folder.key) is folder and not folder.started:
                folder.started = True
                if folder.refused is None:
                    folder.guard = Guard(self, folder, process)
                    self.story.tell(self.name, f"guard of {folder.key} e{folder.epoch} starts")
                    self.on_start(self, folder)
                    process.spawn(folder.guard.run())
            begun()

        async def later() -> None:
            await asyncio.sleep(self.rng.choice((0.03, 0.03, 0.8)))
            begin()

        self.process.spawn(later())
        if self.fragile:
            self.fragile = False
            self.on_spawn()

    def new_pid(self) -> int:
        self._pids += 1
        return self._pids


class Guard:
    """Runs the ranks of one attempt on one machine, and keeps its own clock on the lease."""

    def __init__(self, machine: Machine, folder: Folder, process: Process) -> None:
        self._machine, self._folder, self.process = machine, folder, process
        self.boot_id = machine.boot_id
        self.outcome = self.reason = ""
        self.first_failed: Rank | None = None
        self._term_at: float | None = None  # on the machine's clock
        self._kill_at: float | None = None
        self._termed = False
        self._poked = asyncio.Event()
        self._lease = folder.lease
        plan, now = folder.plan, machine.loop.time()
        assert plan is not None
        for local in range(plan["procs"]):
            number = plan["first_rank"] + local
            script = write_script(f"{plan['seed']}/{folder.epoch}/{number}", machine.failing)
            folder.ranks.append(
                Rank(
                    number,
                    local,
                    machine.new_pid(),
                    now,
                    script,
                    now + script.seconds,
                    script.exit_code,
                )
            )

    @property
    def alive(self) -> bool:
        return not self.process.dead and self._folder.exit is None

    def poke(self) -> None:
        self._poked.set()

    def kill(self) -> None:
        """SIGKILL: its ranks die with it."""
        self.process.kill()
        for rank in self._folder.ranks:
            rank.kill(self._machine.loop.time(), 9)

    async def run(self) -> None:
        machine, folder = self._machine, self._folder
        while self._consider():
            await self._wait()
            await asyncio.sleep(machine.rng.random() * machine.lag)
        await asyncio.sleep(machine.rng.choice((0.01, 0.01, 0.5)))  # the record is on its way
        folder.exit = {
            "outcome": self.outcome or "done",
            "reason": self.reason,
            "first_failed": self.first_failed,
        }
        machine.story.tell(
            machine.name, f"{folder.key} e{folder.epoch} ends: {folder.exit['outcome']}"
        )

    async def _wait(self) -> None:
        """Until a rank ends, a deadline comes, or a stop request."""
        machine, now = self._machine, self._machine.loop.time()
        marks = [rank.ends_at - now for rank in self._folder.ranks if not rank.told]
        deadlines = [self._lease] if self._kill_at is None else [self._term_at, self._kill_at]
        clock = machine.clock()
        marks += [machine.seconds_until(m) for m in deadlines if m is not None and m > clock]
        self._poked.clear()
        try:
            async with asyncio.timeout(min(max(0.0, min(marks)), _LONGEST) + 1e-6):
                await self._poked.wait()
        except TimeoutError:
            pass

    def _consider(self) -> bool:
        """Take note of who ended and do what follows; whether a rank is left."""
        now, clock = self._machine.loop.time(), self._machine.clock()
        for rank in self._folder.ranks:
            if not rank.told and not rank.alive(now):
                rank.told = True
                if (rank.exit_code or rank.signal) and not self.outcome and not self.first_failed:
                    self.first_failed = rank
        alive = [rank for rank in self._folder.ranks if not rank.told]
        plan, stop = self._folder.plan, self._folder.stop
        assert plan is not None
        if not self.outcome:
            if self.first_failed is not None:
                self._end("failed", f"rank {self.first_failed.number} failed", plan["grace"], 0.0)
            elif not alive:
                return False
            elif stop is not None:
                self._end("stopped", stop["reason"], stop["grace"], plan["notice"])
            elif clock >= self._read_lease():
                grace = plan["grace"]
                self._end("fenced", "the lease ran out", grace, min(plan["notice"], grace / 2))
                self._kill_at = clock + grace  # whoever waits counts the notice in
        elif stop is not None:
            assert self._kill_at is not None
            assert self._term_at is not None
            self._kill_at = min(self._kill_at, max(stop["at"], self._term_at) + stop["grace"])
        if self.outcome:
            assert self._term_at is not None
            assert self._kill_at is not None
            if clock >= self._term_at and not self._termed:
                self._termed = True
                for rank in alive:
                    if not rank.script.deaf:
                        rank.kill(now + rank.script.linger, 15)
            if clock >= self._kill_at:
                for rank in alive:
                    rank.kill(now, 9)
        return bool(alive)

    def _end(self, outcome: str, reason: str, grace: float, notice: float) -> None:
        self.outcome, self.reason = outcome, reason
        self._term_at = self._machine.clock() + notice
        self._kill_at = self._term_at + grace
        self._machine.story.tell(
            self._machine.name,
            f"guard of {self._folder.key} e{self._folder.epoch} stops its ranks: {reason}",
        )

    def _read_lease(self) -> float:
        self._lease = max(self._lease, self._folder.lease)
        return self._lease
