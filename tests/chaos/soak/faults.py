"""What is done to the cluster, and when: a seeded schedule of kills, stops, locks and full disks."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from agents.supervisor import record as records
from agents.supervisor.process import Identity
from jobs.base.errors import InvalidInput, Unreachable
from tests.chaos.cluster import Cluster
from tests.chaos.soak.truth import Fault, Run, Truth, clock, lives

TOGETHER = 0.35
"""How often two things happen at one moment."""
MOST_HITS = 3
"""Kills of a job's ranks and guards; a job that loses its attempt ten times is given up."""

WEIGHTS: dict[tuple[str, str], float] = {
    ("kill", "controller"): 4,
    ("kill", "driver"): 3,
    ("kill", "agent"): 4,
    ("kill", "fork server"): 1,
    ("kill", "raylet"): 1,
    ("kill", "gcs_server"): 1,
    ("kill", "ray"): 1,
    ("kill", "supervisor"): 2,
    ("kill", "rank"): 4,
    ("kill", "guard"): 3,
    ("stop", "controller"): 2,
    ("stop", "driver"): 1,
    ("stop", "agent"): 3,
    ("stop", "raylet"): 1,
    ("stop", "gcs_server"): 1,
    ("stop", "supervisor"): 1,
    ("stop", "rank"): 2,
    ("stop", "guard"): 2,
    ("lock", "database"): 3,
    ("fill", "disk"): 2,
    ("clean", "tmp"): 1,
    ("damage", "rank"): 1,
    ("ask", "request"): 1,
}
"""How likely each thing is."""
_SHORTEST, _LONGEST = 0.5, 8.0
_VERY_LONG = 20.0
"""Seconds that something is stopped, locked or full. Now and then an agent is stopped for very long:
longer than a short lease with its grace."""

NOTICED = 10.0
"""Seconds until the supervisor has seen that Ray's folder is gone, and ended Ray."""

RANK_PARTS = ("rank", "guard")
OF_RAY = {"raylet": "raylet", "gcs_server": "gcs_server", "agent": "ray::AgentActor"}


def parts(cluster: Cluster) -> dict[str, psutil.Process]:
    """The processes of the control plane that live now, by name."""
    record = records.read(cluster.places.cluster_file)
    if record is None:
        return {}
    known = records.processes(record) | {"supervisor": Identity.from_json(record["supervisor"])}
    found = {}
    for name, process in known.items():
        if process is not None and process.alive:
            with contextlib.suppress(psutil.Error):
                found[name] = psutil.Process(process.pid)
    for below, name, words in (
        ("controller", "driver", "agents.fabric.driver"),
        *(("ray", name, words) for name, words in OF_RAY.items()),
        ("agent", "fork server", "guard.py"),
    ):
        with contextlib.suppress(psutil.Error, StopIteration):
            found[name] = next(_below(found.get(below), words))
    return found


def _below(parent: psutil.Process | None, words: str) -> Iterator[psutil.Process]:
    for process in parent.children(recursive=True) if parent else ():
        with contextlib.suppress(psutil.Error):
            if words in " ".join([process.name(), *process.cmdline()]):
                yield process


@dataclass
class Undo:
    """What ends a fault that lasts."""

    fault: Fault
    due: float
    act: Callable[[], None]


class Trouble:
    """Makes it, and ends it.

    Args:
        disk: the folder of a small file system that holds the registry; None to let it be.
        seed: what is done, to whom and when is drawn from it.
        every: seconds between two moments of trouble, on average.
        gentle: nothing is stopped for very long.
    """

    def __init__(
        self,
        cluster: Cluster,
        truth: Truth,
        disk: Path | None,
        seed: int,
        *,
        every: float,
        gentle: bool,
    ) -> None:
        self._every = every
        self._cluster, self._truth, self._disk = cluster, truth, disk
        self._random = random.Random(f"{seed} trouble")
        self._very_long = 0.0 if gentle else 0.2
        self._undo: list[Undo] = []
        self._hits: dict[str, int] = {}

    def pause(self) -> float:
        """Seconds until the next trouble."""
        return min(max(self._random.expovariate(1 / self._every), 0.2), 3 * self._every)

    def make(self) -> None:
        """One or two things at one moment. What is not there cannot be hurt: then it is nothing."""
        dice = self._random
        chosen = dice.choices(list(WEIGHTS), list(WEIGHTS.values()), k=2)
        if dice.random() > TOGETHER or chosen[0] == chosen[1]:
            chosen = chosen[:1]
        alive = parts(self._cluster)
        acts = [self._prepare(what, part, alive) for what, part in chosen]
        for act in filter(None, acts):  # found first, then hurt at once
            with contextlib.suppress(psutil.NoSuchProcess):
                act()

    def _prepare(
        self, what: str, part: str, alive: dict[str, psutil.Process]
    ) -> Callable[[], None] | None:
        seconds = self._random.uniform(_SHORTEST, _LONGEST)
        if (what, part) == ("stop", "agent") and self._random.random() < self._very_long:
            seconds = _VERY_LONG
        if what == "lock":
            return lambda: self._lock(seconds)
        if what == "fill":
            return lambda: self._fill(seconds)
        if what == "clean":
            return self._clean
        if what == "ask":
            return self._ask
        run: Run | None = None
        if part in RANK_PARTS:
            run, process = self._of_a_job(part)
        else:
            process = alive.get(part)
        if process is None:
            return None
        return lambda: self._signal(what, part, process, run, seconds)

    def _of_a_job(self, part: str) -> tuple[Run | None, psutil.Process | None]:
        """A rank, or the guard above one, of a job that has not been hit too often."""
        found = [life for life in lives(self._truth.diary) if life.exit is None]
        self._random.shuffle(found)
        for life in found:
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(life.pid)
                if str(self._truth.diary) not in process.cmdline():
                    continue
                above = process.parent()
                if self._hits.get(life.job, 0) < MOST_HITS and above is not None:
                    return life.run, process if part == "rank" else above
        return None, None

    def _signal(
        self, what: str, part: str, process: psutil.Process, run: Run | None, seconds: float
    ) -> None:
        now = clock()
        if what == "damage":
            with contextlib.suppress(psutil.Error, OSError):
                attempt = Path(process.cwd()).parent
                for name in ("state.json", "handle.json"):
                    (attempt / name).write_bytes(self._random.randbytes(200))
                self._truth.faults.append(Fault(what, part, now, now, run, process.pid))
            if run:
                self._hits[run[0]] = self._hits.get(run[0], 0) + 1
            return
        if what == "kill":
            process.kill()
            self._truth.faults.append(Fault(what, part, now, now, run, process.pid))
            if run:
                self._hits[run[0]] = self._hits.get(run[0], 0) + 1
            return
        process.suspend()

        def resume() -> None:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()

        self._lasts(Fault(what, part, now, now + seconds, run, process.pid), resume)

    def _lock(self, seconds: float) -> None:
        """Hold the one write lock that SQLite has."""
        other = sqlite3.connect(self._cluster.places.database, timeout=2.0, isolation_level=None)
        try:
            other.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:  # another lock of ours, or no disk to lock on
            return other.close()
        now = clock()
        return self._lasts(Fault("lock", "database", now, now + seconds), other.close)

    def _fill(self, seconds: float) -> None:
        if self._disk is None:
            return
        ballast, now = self._disk / "ballast", clock()
        if ballast.exists():
            return
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            room = os.statvfs(self._disk)
            os.posix_fallocate(file.fileno(), 0, room.f_bavail * room.f_frsize * 9 // 10)
            file.seek(0, os.SEEK_END)
            while True:
                file.write(bytes(4096))
        self._lasts(Fault("fill", "disk", now, now + seconds), ballast.unlink)

    def _clean(self) -> None:
        """Take away what Ray has below /tmp."""
        now = clock()
        shutil.rmtree(self._cluster.places.ray_temp, ignore_errors=True)
        self._truth.faults.append(Fault("clean", "tmp", now, now + NOTICED))

    def _ask(self) -> None:
        """Send what no client would send; nobody else may have to wait for it."""
        now, body = clock(), {"spec": {f"x{n}": n for n in range(200_000)}}
        self._truth.faults.append(Fault("ask", "request", now, now))
        client = self._cluster.client

        def post() -> None:
            with contextlib.suppress(
                InvalidInput, Unreachable
            ):  # what else comes of it is an error
                answer = client.post("/v1/jobs", body)
                self._truth.remark(f"a hostile request was taken: {answer}")

        threading.Thread(target=post, daemon=True).start()

    def _lasts(self, fault: Fault, undo: Callable[[], None]) -> None:
        self._truth.faults.append(fault)
        self._undo.append(Undo(fault, fault.until, undo))

    def end_what_is_due(self, *, all_of_it: bool = False) -> None:
        """Undo what has lasted long enough, and see that there is a supervisor."""
        for undo in list(self._undo):
            if all_of_it or undo.due <= clock():
                self._undo.remove(undo)
                undo.act()
                undo.fault.until = clock()
        if not self._undo and not self._supervised():  # what is stopped would hold `qd up` up
            self._truth.remark("qd up")
            self._cluster.up()

    def _supervised(self) -> bool:
        record = records.read(self._cluster.places.cluster_file)
        process = Identity.from_json(record["supervisor"]) if record else None
        return process is not None and process.alive

    def mercy(self) -> None:
        """Let everything go on that is stopped; whatever happened before."""
        for undo in self._undo:
            with contextlib.suppress(Exception):
                undo.act()
        self._undo.clear()
        for process in self._cluster.processes():
            with contextlib.suppress(psutil.Error):
                os.kill(process.pid, signal.SIGCONT)
