"""What must hold in every history, looked at whenever something changes."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from jobs.base.names import parse_key
from jobs.base.states import TERMINAL
from jobs.metrics.points import Points
from tests.sim.fabric import Network
from tests.sim.head import Head
from tests.sim.machine import Folder, Machine, Rank
from tests.sim.story import Story

_DECIDED = 2.0
"""Virtual seconds that a decision may take to be written down."""


@dataclass(slots=True, eq=False)
class Copy:
    """An attempt's part that was started on a machine."""

    job: int
    epoch: int
    machine: Machine
    folder: Folder
    stray: bool = False  # the registry, once restored, does not know it

    def alive(self, now: float) -> bool:
        return any(rank.alive(now) for rank in self.folder.ranks)


@dataclass(slots=True)
class _Row:
    state: str
    attempts: int
    reason: str


@dataclass(slots=True)
class Checks:
    """Args:
    clock: virtual time in seconds.
    """

    network: Network
    story: Story
    clock: Callable[[], float]
    copies: dict[int, list[Copy]] = field(default_factory=dict)  # job -> all that ever started
    acknowledged: set[int] = field(default_factory=set)  # jobs whose submission was confirmed
    retried: Counter[int] = field(default_factory=Counter)  # job -> retries that may still wake it
    drained: dict[str, float] = field(default_factory=dict)  # node -> since when, surely
    lost: set[str] = field(default_factory=set)  # nodes that will not come back
    head: Head = field(init=False)
    _rows: dict[int, _Row] = field(default_factory=dict)
    _epochs: dict[int, int] = field(default_factory=dict)  # job -> its newest epoch
    _ended: set[int] = field(default_factory=set)  # epochs that the registry says are over
    _points: dict[tuple[int, int], int] = field(default_factory=dict)  # metric offsets

    # -- on the nodes -------------------------------------------------------------------------------

    def started(self, machine: Machine, folder: Folder) -> None:
        """Ranks start: nothing else of the job may be alive, and the node must have room."""
        assert folder.plan is not None
        now, job = self.clock(), self._job_of(folder)
        for other in self.copies.setdefault(job, []):
            if not other.alive(now):
                continue
            if other.epoch != folder.epoch:
                self.story.violated(
                    f"two attempts of j{job} live: e{other.epoch} on {other.machine.name}, "
                    f"e{folder.epoch} on {machine.name}"
                )
            elif other.machine is machine:
                self.story.violated(f"e{folder.epoch} of j{job} runs twice on {machine.name}")
        if any(c.epoch == folder.epoch and c.machine is machine for c in self.copies[job]):
            self.story.violated(f"e{folder.epoch} of j{job} was started twice on {machine.name}")
        self.copies[job].append(Copy(job, folder.epoch, machine, folder, self._unknown(folder)))
        self._check_room(machine, now)

    def _job_of(self, folder: Folder) -> int:
        """The job's number; a negative one for a job that was lost, whose number another one may have."""
        key = parse_key(folder.key)
        row = self.head.sql.execute("SELECT token FROM jobs WHERE id=?", (key.job,)).fetchone()
        return key.job if row == (key.token,) else -key.job

    def _unknown(self, folder: Folder) -> bool:
        """Whether the registry does not know that this attempt was launched: then a backup came, which may
        have it as one that is placed, and may withdraw it."""
        key = parse_key(folder.key)
        row = self.head.sql.execute(
            "SELECT identity FROM attempts WHERE job_id=? AND id=? AND state!='PLACING'",
            (key.job, folder.epoch),
        ).fetchone()
        return self._job_of(folder) < 0 or row != (key.identity,)

    def restored(self) -> None:
        """A backup was put in the registry's place. What it does not know is nobody's promise now, but no
        second copy of a job may run beside one that it does not know."""
        sql = self.head.sql
        known = {number for (number,) in sql.execute("SELECT id FROM jobs")}
        for number in [number for number in self.copies if number not in known and number > 0]:
            self.copies.setdefault(-number, []).extend(self.copies.pop(number))
        for copies in self.copies.values():
            for copy in copies:
                copy.stray = copy.stray or self._unknown(copy.folder)
        self.acknowledged &= known
        for memory in (self._rows, self._epochs, self._ended, self._points, self.drained):
            memory.clear()
        held = "SELECT job_id, id FROM attempts WHERE NOT released ORDER BY id"
        self._epochs.update(sql.execute(held).fetchall())
        self.written()

    def _is_stray(self, folder: Folder) -> bool:
        copies = self.copies.get(self._job_of(folder), [])
        return any(copy.stray and copy.folder is folder for copy in copies)

    def _check_room(self, machine: Machine, now: float) -> None:
        cpus, gpus = 0.0, []
        for copy in itertools.chain.from_iterable(self.copies.values()):
            if copy.machine is machine and copy.alive(now):
                assert copy.folder.plan is not None
                assert copy.folder.staged is not None
                if (
                    not copy.stray
                ):  # nobody knows what a stray counts on; a GPU it has in the ledger
                    cpus += copy.folder.plan["cpus"]
                gpus += copy.folder.staged["gpus"]
        if cpus > machine.cpus:
            self.story.violated(f"{machine.name} runs {cpus:g} CPUs of {machine.cpus:g}")
        if len(set(gpus)) < len(gpus):
            self.story.violated(f"{machine.name} gave a GPU twice: {sorted(gpus)}")

    def forgotten(self, folder: Folder) -> None:
        """A node removes what the controller says it has: all of it must be there, durably."""
        if folder.plan is None or self._is_stray(folder):
            return
        job, attempt = int(folder.plan["job"][1:]), folder.plan["attempt"]
        for rank in folder.ranks:
            held = self.head.logs.synced.get((job, attempt, rank.number), 0)
            log = rank.log(self.clock())
            if held < len(log):
                self.story.violated(f"{folder.key} r{rank.number}: {held} of {len(log)} bytes kept")
            self._check_metrics(folder, rank, whole=True)

    def _check_metrics(self, folder: Folder, rank: Rank, *, whole: bool) -> None:
        wrote = rank.lines(self.clock())
        steps = [
            step
            for names, data in self.head.sql.execute(
                "SELECT names, data FROM metric_chunks WHERE attempt_id=? AND rank=? ORDER BY id",
                (folder.epoch, rank.number),
            )
            for step in Points.from_bytes(json.loads(names), data).steps
        ]
        if steps != list(range(len(steps))) or (whole and len(steps) != wrote):
            self.story.violated(f"{folder.key} r{rank.number}: {wrote} points, stored {steps}")

    # -- in the registry ----------------------------------------------------------------------------

    def written(self) -> None:
        """The registry has changed."""
        sql = self.head.sql
        rows = {
            number: _Row(state, attempts, reason)
            for number, state, attempts, reason in sql.execute(
                "SELECT id, state, attempts, reason FROM jobs"
            )
        }
        for number, row in rows.items():
            before = self._rows.get(number)
            if before is None or before.state != row.state:
                was = before.state if before is not None else "new"
                self.story.tell("registry", f"j{number} {was} -> {row.state} {row.reason}".rstrip())
                self._check_change(number, was, row.state)
        if lost := self._rows.keys() - rows.keys():
            self.story.violated(f"jobs {sorted(lost)} are gone from the registry")
        self._rows = rows
        self._check_attempts()
        for epoch, rank, offset in sql.execute(
            "SELECT attempt_id, rank, metric_offset FROM ranks WHERE metric_offset > 0"
        ):
            if offset < self._points.get((epoch, rank), 0):
                self.story.violated(f"metrics of e{epoch} r{rank} went back to {offset}")
            self._points[epoch, rank] = offset

    def _check_change(self, number: int, was: str, state: str) -> None:
        if was in TERMINAL:
            if not self.retried[number] or state != "QUEUED":
                self.story.violated(f"j{number} was {was} and became {state}")
            self.retried[number] -= 1
        if state in TERMINAL:
            now = self.clock()
            for copy in self.copies.get(number, []):
                if copy.alive(now) and not copy.stray:
                    self.story.violated(
                        f"j{number} is {state}, but e{copy.epoch} lives on {copy.machine.name}"
                    )
        if state == "SUCCEEDED":
            self._check_success(number)

    def _check_success(self, number: int) -> None:
        copies = [
            copy
            for copy in self.copies.get(number, [])
            if not copy.stray or not self._unknown(copy.folder)  # or it has been taken up again
        ]
        newest = max((copy.epoch for copy in copies), default=None)
        parts = [copy for copy in copies if copy.epoch == newest]
        ranks = [rank for copy in parts for rank in copy.folder.ranks]
        plan = parts[0].folder.plan if parts else None
        if plan is None or len(ranks) != plan["world_size"]:
            self.story.violated(f"j{number} succeeded with {len(ranks)} ranks")
        elif any(rank.exit_code != 0 for rank in ranks):
            self.story.violated(f"j{number} succeeded, but a rank failed")
        else:
            for rank in ranks:
                held = self.head.logs.synced.get((number, plan["attempt"], rank.number), 0)
                if held < len(rank.log(self.clock())):
                    self.story.violated(f"j{number} succeeded without the log of r{rank.number}")

    def _check_attempts(self) -> None:
        holding: dict[int, int] = {}
        now = self.clock()
        for number, epoch, released, ended in self.head.sql.execute(
            "SELECT job_id, id, released, ended_at IS NOT NULL FROM attempts ORDER BY id"
        ):
            if ended and epoch not in self._ended:
                self._ended.add(epoch)
                for copy in self.copies.get(number, []):
                    if copy.epoch == epoch and copy.alive(now):
                        self.story.violated(
                            f"e{epoch} of j{number} is taken for over, but lives on "
                            f"{copy.machine.name}"
                        )
            if not released:
                if number in holding:
                    self.story.violated(f"j{number} holds e{holding[number]} and e{epoch}")
                holding[number] = epoch
        for number, epoch in holding.items():
            known = self._epochs.get(number)
            if known == epoch:
                continue
            if known is not None and epoch < known:
                self.story.violated(f"j{number} went from e{known} back to e{epoch}")
            self._epochs[number] = epoch
            self._check_place(number, epoch, now)
            for copy in self.copies.get(number, []):
                if copy.epoch != epoch and copy.alive(now):
                    self.story.violated(
                        f"j{number} was placed as e{epoch} while e{copy.epoch} lives on "
                        f"{copy.machine.name}"
                    )

    def _check_place(self, number: int, epoch: int, now: float) -> None:
        for (node,) in self.head.sql.execute("SELECT node FROM parts WHERE attempt_id=?", (epoch,)):
            if now > self.drained.get(node, now) + _DECIDED:
                self.story.violated(f"j{number} was placed on {node}, which is drained")

    def memory(self) -> None:
        """What the controller believes is what the registry holds, whenever no write is on its way."""
        controller = self.head.controller
        if controller is None:
            return
        for number, live in controller.reconciler.live.items():
            row = self._rows.get(number)
            if live.lock.locked() or row is None:
                continue
            if (live.job.state, live.job.attempts) != (row.state, row.attempts):
                self.story.violated(
                    f"the controller takes j{number} for {live.job.state} ({live.job.attempts}), "
                    f"the registry for {row.state} ({row.attempts})"
                )

    # -- at the end ---------------------------------------------------------------------------------

    def unfinished(self) -> list[str]:
        """What still has to happen before all is over; empty when nothing has."""
        left = [
            f"j{n} is {row.state}" for n, row in self._rows.items() if row.state not in TERMINAL
        ]
        left += [f"{name} is reserved" for name in self.network.reserved]
        for host in self.network.hosts.values():
            if host.name in self.lost:
                continue
            left += [f"{host.name} holds {key}" for key in host.machine.folders]
            if host.agent is None:
                left.append(f"{host.name} has no agent")
            elif not host.agent.ledger_is_empty():
                left.append(f"the ledger of {host.name} is not empty")
        return left

    def waiting(self) -> list[int]:
        """Jobs in the queue."""
        return [number for number, row in self._rows.items() if row.state == "QUEUED"]

    def finally_(self, *, unhurt: bool) -> None:
        """All is over: what was acknowledged is there, once. `unhurt`: nothing happened that may cost
        a job its ranks."""
        for number, row in self._rows.items():
            if unhurt and (row.state, row.attempts) != ("SUCCEEDED", 1):
                self.story.violated(f"j{number} is {row.state} after {row.attempts} attempts")
        for number in self.acknowledged - self._rows.keys():
            self.story.violated(f"j{number} was acknowledged and is lost")
        for copies in self.copies.values():
            for copy in [copy for copy in copies if not copy.stray]:
                for rank in copy.folder.ranks:
                    self._check_log(copy, rank)
                    self._check_metrics(copy.folder, rank, whole=False)

    def _check_log(self, copy: Copy, rank: Rank) -> None:
        assert copy.folder.plan is not None
        key = (copy.job, copy.folder.plan["attempt"], rank.number)
        held, wrote = self.head.logs.held.get(key, b""), rank.log(self.clock())
        if held != wrote and not (copy.machine.name in self.lost and wrote.startswith(held)):
            self.story.violated(f"the log of j{key[0]}.{key[1]} r{key[2]} is not what it wrote")
