"""The front as the controller sees it: a job of its own that is always wanted, written to and read.

What it should do follows from the registry alone, and is said again at every look: a front that was
started anew has all of it with the first letter.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pwd
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sqlmodel import Session

from agents.controller.core.live import Live
from agents.controller.core.reconciler import Reconciler
from agents.controller.nodes.links import Links
from agents.controller.services.patience import Patience
from agents.controller.stores.database import Database
from agents.controller.stores.hub import Hub
from jobs.base.errors import Conflict, NotFound, Unreachable
from jobs.base.names import job_name
from jobs.base.states import TERMINAL
from jobs.services.front import needs
from jobs.spec.job import JobSpec
from jobs.store import services as store
from jobs.store.entering import Entered, Entry, Submission, enter_jobs
from jobs.store.loading import new_job
from jobs.store.writing import Caller


def ourselves() -> Caller:
    """Who acts where no person does: the account that the controller runs as."""
    uid = os.getuid()
    try:
        return Caller(pwd.getpwuid(uid).pw_name, uid)
    except KeyError:
        return Caller(f"uid{uid}", uid)


def front_spec() -> JobSpec:
    """The front's job. It is started again here, at once, and not by the job's own restarts."""
    return JobSpec.from_json(
        {
            "name": "front",
            "kind": "service",
            "command": ["python", "-m", "quarterdeck_front"],
            "python": sys.executable,
            "resources": {"cpu": 0},
            "priority": 100,
            "grace": 5,
            "notice": 0,
            "tags": {"service": "front"},
        }
    )


@dataclass(frozen=True, slots=True)
class Plant:
    """What services share with the rest of the controller. `now` is unix time, `monotonic` never jumps;
    both in seconds. `tell` says what is wrong with a source at the moment, "" that nothing is."""

    database: Database
    reconciler: Reconciler
    links: Links
    hub: Hub
    cluster: str
    address: Callable[[str], str]  # of a node, as the registry last heard of it
    now: Callable[[], float]
    monotonic: Callable[[], float]
    tell: Callable[[str, str], None]

    def entered(self, entered: Entered, spec: JobSpec) -> None:
        """Let the rest of the controller know of a job that was recorded."""
        if entered.row is None:
            return
        live = self.reconciler.add(entered.row, new_job(entered.row), spec)
        self.hub.publish("jobs", live.view["id"], live.view)
        self.hub.announce(entered.events)


@dataclass(slots=True)
class Front:
    """`said` is what the front last wrote; empty before it has."""

    plant: Plant
    said: dict[str, Any] = field(default_factory=dict)
    node: str = ""
    patience: Patience = field(default_factory=Patience)
    _written: tuple[int, str] = (0, "")  # epoch and revision of the last letter
    _letter: dict[str, Any] = field(default_factory=dict)  # what it asked, by service

    async def ensure(self) -> None:
        """Have a front: one job that is not over."""
        row = await self.plant.database.read(store.front_job)
        if row is not None and row.state not in TERMINAL:
            return
        if row is not None:
            ran = (row.ended_at or 0.0) - (row.started_at or row.ended_at or 0.0)
            if not self.patience.may_again(row.id or 0, ran, self.plant.monotonic()):
                return
        spec, now, who = front_spec(), self.plant.now(), ourselves()
        submission = Submission(
            name=spec.name,
            kind=spec.kind,
            spec=spec.to_json(),
            nodes=1,
            ranks=1,
            gpus=0.0,
            cpus=0.0,
            priority=spec.priority,
            max_restarts=0,
            tags=spec.tags,
        )

        def write(session: Session) -> Entered:
            (entered,) = enter_jobs(session, [Entry(submission, who, now)])
            store.set_front(session, entered.number)
            return entered

        self.plant.entered(await self.plant.database.write(write), spec)

    async def end(self) -> None:
        """Have none: nothing is served."""
        row = await self.plant.database.read(store.front_job)
        live = self.plant.reconciler.live.get(row.id or 0) if row is not None else None
        self.said = {}
        if live is not None and not live.job.cancel:
            with contextlib.suppress(Conflict):  # it has ended meanwhile
                await self.plant.reconciler.cancel(live.job.id, ourselves())

    async def exchange(self, asked: dict[str, Any]) -> bool:
        """Say what it should do, and read what it has seen; whether it was reached."""
        row = await self.plant.database.read(store.front_job)
        live = self.plant.reconciler.live.get(row.id or 0) if row is not None else None
        if live is None or live.job.state != "RUNNING" or live.job.attempt is None:
            self.said = {}
            self._tell(live, row.reason if row is not None else "")
            return False
        attempt = live.job.attempt
        revision = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]
        letter = b""
        if self._written != (attempt.epoch, revision):
            letter = json.dumps({**asked, "revision": revision}).encode()
        self.node = attempt.allocations[0].node
        try:
            _, agent = self.plant.links.agent(self.node)
            answer = await agent.exchange(live.key(self.plant.cluster), letter)
        except (Unreachable, NotFound, Conflict):
            return False  # it goes on without us
        self._written = (attempt.epoch, revision)
        self._letter = {service["name"]: service for service in asked["services"]}
        self.said = json.loads(answer) if answer else {}
        self._tell(live, "")
        return True

    def does(self, service: dict[str, Any]) -> bool:
        """Whether it is known to do what is asked for a service."""
        applied = bool(self.said) and self.said.get("applied") == self._written[1]
        applied = applied and not self.lacks(service)
        return applied and self._letter.get(service["name"]) == service

    def lacks(self, service: dict[str, Any]) -> set[str]:
        """What is asked for a service that the front which runs is too old to know."""
        return needs(service) - set(self.said.get("knows", ())) if self.said else set()

    def _tell(self, live: Live | None, reason: str) -> None:
        error = self.said.get("error", "")
        if live is None and reason:
            error = error or f"the front of services does not run: {reason}"
        elif error:
            error = f"the front of services ({job_name(live.job.id) if live else '?'}): {error}"
        self.plant.tell("front", error)
