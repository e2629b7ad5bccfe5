"""The people of the soak: some submit, some lose their connection in the middle of it, some cancel."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

from console.client import Client
from jobs.base.errors import Conflict, NotFound, QuarterdeckError, StorageFull, Unreachable
from jobs.base.states import JOB_STATES, TERMINAL
from jobs.spec.job import JobSpec
from jobs.sweeps.spec import SweepSpec
from tests.chaos.soak.truth import Ask, Truth, clock

RANK = Path(__file__).with_name("rank.py")
ALIVE = 6
"""Jobs, besides the trials of the sweep, that are kept alive."""
GRACE = 2.0
SHORT_LEASE = 10.0
MOST_LARGE = 3
"""Jobs that write a large checkpoint, at most, one after the other."""
PAUSE = 0.3
"""Seconds between two looks of somebody who waits."""

KINDS: dict[str, dict[str, Any]] = {
    "steady": {"procs_per_node": 2, "max_restarts": 10},
    "leased": {"procs_per_node": 2, "max_restarts": 10, "lease": SHORT_LEASE},
    "gpu": {"resources": {"gpu": 1, "cpu": 0.5}, "max_restarts": 10},
    "short": {},
    "failing": {"max_restarts": 2},
    "deaf": {"procs_per_node": 2, "max_restarts": 10},
    "large": {"max_restarts": 10, "checkpoint": {"copy": "all", "every": 0, "artifact": True}},
    "moved": {"max_restarts": 10},
}
"""What jobs there are, and what is special in their files."""
_WEIGHTS = {"steady": 4, "leased": 2, "gpu": 3, "short": 4, "failing": 1, "deaf": 2}
_OPTIONS = {
    "failing": " --fail",
    "deaf": " --deaf",
    "large": " --large MIB",
    "moved": " --moved",
}
_TICKS = {"short": (2, 10), "failing": (1000, 1000), "deaf": (100, 300), "moved": (2, 10)}
"""How many ticks a job has at least and at most; by default 80 to 250."""


class People:
    """Threads that use the cluster as people and their scripts do.

    Args:
        seed: what they do is drawn from it; when, the cluster has a say in too.
        minutes: how long they will; in a short time they run shorter jobs, and cancel more often.
        large: MiB of the one large checkpoint, which is copied, kept, and what another job begins with.
    """

    def __init__(
        self, socket_path: Path, truth: Truth, seed: int, minutes: float, large: int
    ) -> None:
        self._client, self._truth = Client(socket_path, timeout=5.0), truth
        self._random = random.Random(f"{seed} people")
        self._canceller = random.Random(f"{seed} canceller")
        self._cancel_every = min(30.0, 12 * minutes)
        self._length = min(1.0, minutes / 2)
        self._large, self._tries = large, 0
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._keep, args=(work,), name=work.__name__)
            for work in (self._submitting, self._cancelling)
        ]
        self.errors: list[BaseException] = []

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        """Begin nothing more; returns when all that was begun was answered."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _keep(self, work: Any) -> None:
        try:
            work()
        except BaseException as error:  # told by whoever runs the soak
            self.errors.append(error)

    # -- submitting --

    def _submitting(self) -> None:
        number = 0
        while not self._over.wait(PAUSE):
            with contextlib.suppress(QuarterdeckError):
                alive = [job for job in self._unfinished() if not job["tags"]]
                if len(alive) < ALIVE:
                    number += 1
                    self._submit(f"soak-{number}", *self._about_the_large_one())

    def _unfinished(self) -> list[dict[str, Any]]:
        states = [state for state in JOB_STATES if state not in TERMINAL]
        found: list[dict[str, Any]] = self._client.get("/v1/jobs", state=states, limit=100)["jobs"]
        return found

    def _about_the_large_one(self) -> tuple[str, dict[str, Any]] | tuple[()]:
        """What is submitted next on behalf of the large checkpoint: the job that writes it, again if that was
        killed too often or is in no registry any more; once it is kept, the one that begins with it."""
        asks = [ask for ask in self._truth.asks if ask.kind in ("large", "moved")]
        if not self._large:
            return ()
        if asks:
            try:
                view = self._client.get(f"/v1/jobs/{asks[-1].job}")
            except NotFound:
                view = {"state": "FAILED"}
            if view["state"] not in TERMINAL or (asks[-1].kind, view["state"]) == (
                "moved",
                "SUCCEEDED",
            ):
                return ()
            kept = [a["digest"] for a in view.get("artifacts", ()) if a["name"] == "checkpoint"]
            if view["state"] == "SUCCEEDED" and kept:
                return "moved", {"checkpoint": {"start": kept[0]}}
        self._tries += 1
        return ("large", {}) if self._tries <= MOST_LARGE else ()

    def _submit(self, key: str, kind: str = "", more: dict[str, Any] | None = None) -> None:
        """Submit until it is acknowledged; some have their connection cut first."""
        dice = self._random
        drawn = dice.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
        kind = kind or drawn
        low, high = _TICKS.get(kind, (80, 250))
        ticks = 1 + round(dice.randint(low, high) * self._length)
        command = f"{sys.executable} -u {RANK} {self._truth.diary} {ticks}"
        options = _OPTIONS.get(kind, "").replace("MIB", str(self._large))
        fields = {"command": command + options, "name": kind, "notice": 0.0}
        fields |= {"grace": GRACE, "resources": {"cpu": 0.5}} | KINDS[kind] | (more or {})
        body = {"spec": JobSpec.from_json(fields).to_json(), "key": key}
        ask = Ask(key, kind, clock())
        self._truth.asks.append(ask)
        for _ in range(dice.choice((0, 0, 0, 1, 2))):
            self._cut_off(body, dice.random() * 1.3)
        while True:
            try:
                answer = self._client.post("/v1/jobs", body)
                ask.job, ask.answered = answer["id"], clock()
                ask.created = answer["created"]
                return
            except (Unreachable, StorageFull):  # nothing was acknowledged, so ask again
                time.sleep(PAUSE)

    def _cut_off(self, body: dict[str, Any], share: float) -> None:
        """Send a share of a submit, all of it from 1 on, and be gone."""
        data = json.dumps(body).encode()
        head = "POST /v1/jobs HTTP/1.1\r\nHost: qd\r\nContent-Type: application/json\r\n"
        request = f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(2.0)
            connection.connect(str(self._client.socket))
            connection.sendall(request[: int(len(request) * share)])
            if share > 1.1:
                time.sleep(0.02)

    # -- cancelling --

    def _cancelling(self) -> None:
        while not self._over.wait(self._cancel_every * self._canceller.uniform(0.5, 1.5)):
            candidates = [
                ask
                for ask in self._truth.asks
                if ask.job and not ask.cancelled and ask.kind in ("steady", "deaf", "leased")
            ]
            if candidates:
                self._cancel(self._canceller.choice(candidates[-ALIVE:]))

    def _cancel(self, ask: Ask) -> None:
        asked = 0
        while True:
            try:
                asked += 1
                self._client.post(f"/v1/jobs/{ask.job}/cancel")
            except NotFound:
                return  # a backup was put back that does not have it
            except Conflict:
                if asked == 1:
                    return  # it had ended
            except (Unreachable, StorageFull):
                time.sleep(PAUSE)
                continue
            ask.cancelled = clock()  # a conflict may be with a try whose answer was lost
            return

    # -- the sweep --

    def sweep(self, trials: int) -> str:
        """Start one of so many tiny trials; its id."""
        command = f"{sys.executable} -u {RANK} {self._truth.diary} 6"
        job = {"command": command, "notice": 0.0, "grace": GRACE, "resources": {"cpu": 0.5}}
        spec = SweepSpec.from_json(
            {
                "name": "soak",
                "job": job,
                "space": {"x": {"low": 0.0, "high": 1.0}},
                "objective": {"metric": "loss", "goal": "minimize"},
                "sampler": "random",
                "trials": trials,
                "parallel": 2,
                "seed": 7,
                "retries": 10,
            }
        )
        while True:
            try:
                answer = self._client.post("/v1/sweeps", {"spec": spec.to_json(), "key": "sweep"})
                name: str = answer["id"]
                return name
            except (Unreachable, StorageFull):
                time.sleep(PAUSE)
