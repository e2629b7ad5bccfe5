"""The controller put together: stores, links, reconciler, and what people may ask of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
from sqlmodel import Session, select

from agents.controller.blobs import BlobStore
from agents.controller.cluster import Cluster
from agents.controller.database import Database
from agents.controller.fabric import Fabric
from agents.controller.health import Health
from agents.controller.hub import Hub
from agents.controller.intake import Intake
from agents.controller.links import Links
from agents.controller.logread import LogQuery, LogReader
from agents.controller.logstore import LogStore
from agents.controller.problems import Problems
from agents.controller.pruning import GRACE, Pruning
from agents.controller.reconciler import Reconciler
from agents.controller.secretstore import SecretStore
from agents.controller.studies import Studies
from agents.controller.sweeprun import Plant
from agents.controller.sweeps import Sweeps
from jobs import __version__, audit, queries, registry
from jobs.errors import NotFound, QuarterdeckError
from jobs.lifecycle import Note
from jobs.nodehealth import Pardon
from jobs.registry import Caller
from jobs.tables import NodeRow
from jobs.views import EventView, JobDetail, JobView, NodeView, Problem, StatusView

log = logging.getLogger(__name__)

MEMBERSHIP_EVERY = 1.0
REJOIN_EVERY = 15.0
"""Seconds between two comparisons of what the fabric has reserved with what it should have."""
_TAIL_LINES = 20
"""Last lines of the first failing rank that `qd explain` and `qd job` show."""


class Controller:
    """Everything that the API needs.

    Args:
        state: folder of the registry, blobs and logs.
        database_url: an SQLAlchemy URL; None for SQLite in `state`.
        ray_address: what `kind: ray` jobs get as RAY_ADDRESS.
        prune_after: seconds after which a blob goes that nothing refers to.
        now: unix time. monotonic: a clock that never jumps. Both in seconds.
    """

    def __init__(
        self,
        *,
        state: Path,
        fabric: Fabric,
        database_url: str | None = None,
        ray_address: Callable[[], str | None] = lambda: None,
        prune_after: float = GRACE,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.state, self.fabric, self.now, self.monotonic = state, fabric, now, monotonic
        self._ray_address = ray_address
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        url = database_url or f"sqlite:///{state / 'registry.db'}"
        self.db = Database.open(url)
        self._studies = Studies(url, self.db.turn)
        self.blobs = BlobStore(state / "blobs", now)
        self.logs = LogStore(state / "logs")
        self.secrets = SecretStore(state / "secrets")
        self.hub = Hub()
        self.pruning = Pruning(self.blobs, self.db, self.hub, state, now, prune_after)
        self.cluster = Cluster(monotonic)
        self._problems = Problems()
        self._intake = Intake(
            database=self.db,
            logs=self.logs,
            blobs=self.blobs,
            hub=self.hub,
            cluster=self.cluster,
            problems=self._problems,
            now=now,
        )
        self.links = self._intake.links = Links(fabric, self._intake, monotonic)
        self.cluster_id = ""
        self.reconciler: Reconciler
        self.health: Health
        self.sweeps: Sweeps
        self._started = monotonic()
        self._tasks: list[asyncio.Task[None]] = []

    # -- life ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Load the registry and begin; returns before the fabric is there, so that the API answers."""
        self.cluster_id = self._intake.cluster_id = await self.db.write(registry.cluster_id)
        self.reconciler = self._intake.reconciler = Reconciler(
            cluster_id=self.cluster_id,
            database=self.db,
            fabric=self.fabric,
            links=self.links,
            cluster=self.cluster,
            hub=self.hub,
            blobs=self.blobs,
            secrets=self.secrets,
            now=self.now,
            monotonic=self.monotonic,
            ray_address=self._ray_address,
        )

        self.health = Health(
            database=self.db,
            reconciler=self.reconciler,
            links=self.links,
            cluster=self.cluster,
            hub=self.hub,
            problems=self._problems,
            now=self.now,
            monotonic=self.monotonic,
        )

        def nodes(session: Session) -> list[NodeRow]:
            return list(session.exec(select(NodeRow)).all())

        for row in await self.db.read(nodes):
            node = self.cluster.node(row.name, row.address)
            node.drained, node.reason, node.boot_id = row.drained, row.reason, row.boot_id
            node.quarantine, node.pardon = row.quarantine, Pardon.from_json(row.pardon)
        await self.reconciler.load()
        self.sweeps = Sweeps(
            Plant(
                database=self.db,
                studies=self._studies,
                reconciler=self.reconciler,
                hub=self.hub,
                sweep_secrets=SecretStore(self.state / "secrets" / "sweeps"),
                job_secrets=self.secrets,
                now=self.now,
                monotonic=self.monotonic,
                tell=self._problems.tell,
            )
        )
        await self.sweeps.load()
        self._tasks = [
            asyncio.create_task(self._membership(), name="membership"),
            asyncio.create_task(self.reconciler.run(), name="reconciler"),
            asyncio.create_task(self._watch_registry(), name="registry"),
            asyncio.create_task(self.health.run(), name="health"),
            asyncio.create_task(self.pruning.run(), name="pruning"),
        ]

    async def close(self) -> None:
        """Stop looking after things. What runs on the nodes runs on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.sweeps.close()
        await self.reconciler.close()
        await self.links.close()
        await self.fabric.close()
        self.logs.close()
        self.db.close()

    async def _watch_registry(self) -> None:
        """Tell when nothing can be recorded, and try until something can."""
        while True:
            await asyncio.sleep(MEMBERSHIP_EVERY)
            problem = self.db.problem
            self._problems.tell("registry", problem)
            if problem:
                with contextlib.suppress(QuarterdeckError):
                    await self.db.write(registry.next_revision)

    async def _membership(self) -> None:
        """Keep the links in step with the fabric's members; join it again when it was lost."""
        joined, compared = False, 0.0
        reserved_on: set[str] = set()  # incarnations of nodes
        while True:
            try:
                if not joined:
                    await self.fabric.connect()
                members = await self.fabric.nodes()
                incarnations = {member.id for member in members}
                changed = not joined or incarnations != reserved_on
                if changed or self.monotonic() > compared + REJOIN_EVERY:
                    await self.reconciler.rejoin()
                    reserved_on, compared = incarnations, self.monotonic()
                if not joined:
                    joined = True
                    self.reconciler.wake()
                present = {node.name for node in members}
                for member in members:
                    self.cluster.node(member.name, member.address).fabric = member
                    self._problems.tell(f"name {member.name}", member.conflict)
                for node in self.cluster.nodes.values():
                    if node.name not in present:
                        node.fabric = None
                await self.links.members(members)
                self._problems.tell("ray", "")
            except QuarterdeckError as error:
                joined = False
                self._problems.tell("ray", error.message)
            except Exception as error:
                joined = False
                log.exception("membership")
                self._problems.tell("ray", f"internal error: {error!r}")
            await asyncio.sleep(MEMBERSHIP_EVERY)

    # -- what people ask ----------------------------------------------------------------------------

    def node_views(self) -> list[NodeView]:
        busy = self.reconciler.busy()
        return [
            self.cluster.view(node, busy)
            for node in sorted(self.cluster.nodes.values(), key=lambda node: node.name)
        ]

    def node_view(self, name: str) -> NodeView:
        node = self.cluster.nodes.get(name)
        if node is None:
            known = ", ".join(sorted(self.cluster.nodes)) or "none yet"
            raise NotFound(f"there is no node '{name}'", f"Nodes: {known}.")
        return self.cluster.view(node, self.reconciler.busy())

    async def job_view(self, number: int) -> JobView:
        """Raises NotFound."""
        live = self.reconciler.live.get(number)
        if live is not None:
            return self.reconciler.overlay(live.view)
        return await self.db.read(lambda s: queries.job_view(queries.get_job(s, number)))

    async def job_detail(self, number: int) -> JobDetail:
        """Everything about a job, with the last lines of ranks that failed first.

        Raises:
            NotFound: no such job.
        """
        sizes = await self.logs.run(self.logs.sizes, number)
        detail = await self.db.read(lambda s: queries.job_detail(s, number, sizes))
        for attempt in detail["attempts"]:
            failure = attempt["first_failure"]
            if failure is not None and failure["rank"] is not None:
                failure["tail"] = await self.logs.run(
                    self._tail, number, attempt["number"], failure["rank"]
                )
        live = self.reconciler.live.get(number)
        if live is not None:
            detail["reason"] = self.reconciler.overlay(live.view)["reason"]
        return detail

    def _tail(self, job: int, attempt: int, rank: int) -> list[str]:
        query = LogQuery(job=job, attempt=attempt, rank=rank, tail=_TAIL_LINES)
        return [line["line"] for line in LogReader(self.logs, query).read_on(final=True)]

    async def set_drained(self, name: str, who: Caller, *, drained: bool, reason: str) -> NodeView:
        """Take a node out of scheduling, or put it back. What runs there runs on. Putting it back
        lifts its quarantine too, and pardons what was wrong.

        Raises:
            NotFound: no such node.
        """
        self.node_view(name)
        node, now = self.cluster.nodes[name], self.now()
        verb = "drained" if drained else "undrained"
        text = f"{name} {verb} by {who.user}" + (f": {reason}" if reason else "")
        lifted = "" if drained else node.quarantine
        if lifted:
            text += f", and its quarantine lifted ({lifted})"
        gpus = node.sample["gpus"] if node.sample else []
        pardon = node.pardon if drained else replace(node.pardon.noting(gpus), at=now)
        quarantine = node.quarantine if drained else ""
        note = Note(f"node.{verb}", text, node=name, user=who.user)

        def write(session: Session) -> list[EventView]:
            row = session.get(NodeRow, name) or NodeRow(
                name=name, address=node.address, first_seen=now, seen_at=now
            )
            row.drained, row.reason = drained, reason
            row.quarantine, row.pardon = quarantine, pardon.to_json()
            session.add(row)
            registry.add_events(session, None, [note], now)
            audit.append(
                session,
                at=now,
                user=who.user,
                uid=who.uid,
                action="node.drain" if drained else "node.undrain",
                target=name,
                data={"reason": reason, "lifted": lifted} if lifted else {"reason": reason},
            )
            session.flush()
            return queries.events(session, 0, 1, newest=True)

        events = await self.db.write(write)
        node.drained, node.reason = drained, reason
        node.quarantine, node.pardon = quarantine, pardon
        for event in events:
            self.hub.publish("events", str(event["id"]), event)
        view = self.node_view(name)
        self.hub.publish("nodes", name, view, keep=False)
        self.reconciler.wake()
        return {**view, "note": text} if lifted else view

    def complain(self, source: str, text: str) -> None:
        """Tell in `qd status` what is wrong with `source`; an empty text takes it back."""
        self._problems.tell(source, text)

    def problems(self) -> list[Problem]:
        found = self._problems.views()
        for view in self.node_views():
            away = self.cluster.nodes[view["name"]].drained and not view["jobs"]
            if view["state"] in ("LOST", "SUSPECT") and not away:  # drained and gone is in order
                found.append(
                    {
                        "what": f"node {view['name']} has been silent for {view['age']:.0f} s",
                        "fix": "Its jobs are restarted elsewhere when their leases end; look at the "
                        f"machine. If it left for good: `qd forget {view['name']}`.",
                        "severity": "error" if view["state"] == "LOST" else "warning",
                    }
                )
            if view["state"] == "QUARANTINED":
                found.append(
                    {
                        "what": f"node {view['name']} is quarantined: {view['reason']}",
                        "fix": f"Look at the machine; `qd undrain {view['name']}` puts it back.",
                        "severity": "warning",
                    }
                )
        return found

    async def status(self) -> StatusView:
        counts = await self.db.read(queries.state_counts)
        views = self.node_views()
        problems = self.problems()
        present = [view for view in views if view["state"] != "LOST"]
        storage = self.pruning.storage()
        told: StatusView = {
            "state": "degraded" if problems or not present else "ok",
            "version": __version__,
            "cluster": {
                "nodes": len(present),
                "gpus": sum(len(view["gpus"]) for view in present),
                "simulated": any(gpu["simulated"] for view in present for gpu in view["gpus"]),
                "cpus": sum(view["cpu"]["count"] for view in present),
                "jobs": counts,
            },
            "problems": problems,
            "cluster_id": self.cluster_id,
            "uptime": round(self.monotonic() - self._started, 3),
            "pid": os.getpid(),
            "memory": psutil.Process().memory_info().rss,
            "ray": self.fabric.state,
        }
        return {**told, "storage": storage} if storage is not None else told
