"""What is done to the registry itself: a backup is made while all goes on and put back later, and its file
is taken away or exchanged under the running controller."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from jobs.base.errors import QuarterdeckError
from tests.chaos.cluster import Cluster
from tests.chaos.soak.truth import Fault, Restore, Run, Truth, clock

PATIENCE = 90.0
"""Seconds for the cluster to answer, or to be ready for what is done to it."""
NOTICED = 2.0
"""Seconds within which a controller refuses to write to a file that is not there any more."""
WORDS = ("was replaced while", "was removed while")


class Keeper:
    """Makes a backup as soon as it can be made, beside everything else that happens."""

    def __init__(self, cluster: Cluster, truth: Truth) -> None:
        self._cluster, self._truth = cluster, truth
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="backup")
        self.made: tuple[Path, float, float] | None = None  # where, begun, done

    def begin(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _keep(self) -> None:
        number = 0
        while not self._over.is_set():
            number += 1
            began, folder = clock(), self._cluster.places.state / "backups" / f"soak-{number}"
            done = self._cluster.qd("backup", str(folder))
            if done.returncode == 0:
                self.made = folder, began, clock()
                self._truth.remark(f"backup: {done.stdout.strip()}")
                return
            self._truth.remark(f"no backup: {done.stderr.strip()[-200:]}")
            self._over.wait(1.0)


class Registry:
    """Args:
    alive: the processes of the control plane that live now.
    wrong: takes what is not as promised, in words.
    """

    def __init__(
        self,
        cluster: Cluster,
        truth: Truth,
        alive: Callable[[], dict[str, psutil.Process]],
        wrong: list[str],
    ) -> None:
        self._cluster, self._truth = cluster, truth
        self._alive, self.wrong = alive, wrong
        self.keeper = Keeper(cluster, truth)

    def restore(self) -> bool:
        """As after the death of the head: all of it is killed, the backup is put back, and it is started
        again, while ranks run on. Returns whether there was a backup."""
        if self.keeper.made is None:
            return False
        folder, began, made = self.keeper.made
        fault = Fault("restore", "all", clock(), clock() + PATIENCE)
        self._truth.faults.append(fault)
        self._kill_all()
        words = ["restore", str(folder)]
        done = self._cluster.qd(*words)
        deadline = clock() + 30.0
        while done.returncode and " runs (" in done.stderr and clock() < deadline:
            self._kill_all()
            time.sleep(0.5)
            done = self._cluster.qd(*words)
        if done.returncode:
            self.wrong.append(f"qd restore: {done.stderr.strip()}")
        for aside in folder.parent.glob(
            "before-restore-*"
        ):  # as a person does who needs it no more
            shutil.rmtree(aside)
        self._cluster.up()
        fault.until = clock()
        self._truth.restores.append(
            Restore(began, made, fault.began, fault.until, _ended(folder / "registry.db"))
        )
        return True

    def _kill_all(self) -> None:
        alive = self._alive()
        first = [alive[name] for name in ("supervisor", "controller", "ray") if name in alive]
        for process in [*first, *alive.values()]:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(list(alive.values()), timeout=10.0)

    def exchange(self, dice: random.Random) -> bool:
        """Take the registry's file away under the controller, or put a copy in its place, and put it back
        some seconds later. Meanwhile nothing may be acknowledged. Returns whether it was done."""
        if not self._writes(PATIENCE):
            return False
        file = self._cluster.places.database
        away, copied = file.with_name("away.db"), dice.random() < 0.5
        copy = file.with_name("copy.db")
        if copied:
            try:
                _copy(file, copy)
            except (sqlite3.Error, OSError):
                copy.unlink(missing_ok=True)
                return False
        fault = Fault("replace" if copied else "remove", "database", clock(), clock() + PATIENCE)
        self._truth.faults.append(fault)
        file.rename(away)
        if copied:
            copy.rename(file)
        try:
            time.sleep(NOTICED)
            self._check_refused()
            time.sleep(dice.uniform(0.0, 3.0))
        finally:
            away.rename(file)
            fault.until = clock()
        if not self._writes(PATIENCE):
            self.wrong.append("nothing can be written though the registry's own file is back")
        return True

    def _check_refused(self) -> None:
        try:
            self._note()
        except QuarterdeckError as error:
            said = error.message
        else:
            said = "it was acknowledged"
        if not any(words in said for words in WORDS):
            self.wrong.append(f"a write without the registry's file: {said}")

    def _note(self) -> None:
        """A small write, which changes nothing."""
        self._cluster.client.post(f"/v1/nodes/{self._node()}/undrain")

    def _node(self) -> str:
        (node,) = self._cluster.client.get("/v1/nodes")
        name: str = node["name"]
        return name

    def _writes(self, patience: float) -> bool:
        deadline = clock() + patience
        while clock() < deadline:
            with contextlib.suppress(QuarterdeckError, ValueError):
                self._note()
                return True
            time.sleep(0.3)
        return False


def _ended(registry: Path) -> frozenset[Run]:
    """The attempts of whose end a registry knows. What a node still has of a lost one comes after that."""
    with contextlib.closing(
        sqlite3.connect(f"file:{registry}?mode=ro&immutable=1", uri=True)
    ) as file:
        rows = file.execute(
            "SELECT job_id, number FROM attempts WHERE ended_at IS NOT NULL AND state != 'LOST'"
        )
        return frozenset((f"j{job}", number) for job, number in rows)


def _copy(source: Path, target: Path) -> None:
    with (
        contextlib.closing(sqlite3.connect(source, timeout=5.0)) as before,
        contextlib.closing(sqlite3.connect(target)) as after,
    ):
        before.backup(after)
    os.sync()


def schedule(dice: random.Random) -> Iterator[tuple[float, str]]:
    """Which share of the time has passed when each of it is done."""
    yield dice.uniform(0.05, 0.15), "exchange"
    yield dice.uniform(0.2, 0.35), "backup"
    yield dice.uniform(0.45, 0.6), "restore"
    yield dice.uniform(0.75, 0.85), "exchange"
