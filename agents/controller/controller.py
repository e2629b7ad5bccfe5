"""The controller put together: stores, links, reconciler, and what people may ask of it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import psutil
from sqlmodel import Session, select

from agents.controller.alerts.alerts import Alerts
from agents.controller.alerts.conditions import Conditions
from agents.controller.core import copyview
from agents.controller.core.copying import Copier
from agents.controller.core.health import Health
from agents.controller.core.intake import Intake
from agents.controller.core.lag import LoopLag
from agents.controller.core.membership import Membership
from agents.controller.core.reconciler import Reconciler
from agents.controller.core.strays import Strays
from agents.controller.edge.pushes import Pushes
from agents.controller.flows.acts import Acts, NoActs
from agents.controller.flows.flowrecord import Stores
from agents.controller.flows.flowrun import Plant as FlowPlant
from agents.controller.flows.flows import Flows
from agents.controller.flows.schedules import Schedules
from agents.controller.nodes.cluster import Cluster
from agents.controller.nodes.fabric import Fabric
from agents.controller.nodes.links import Links
from agents.controller.services.evaluations import Evaluations
from agents.controller.services.front import Plant as ServicePlant
from agents.controller.services.monitors import Monitors
from agents.controller.services.services import Services
from agents.controller.stores.auditheads import AuditHeads, Head
from agents.controller.stores.blobs import BlobStore, FolderBlobs
from agents.controller.stores.continuity import Continuity, MarkFile
from agents.controller.stores.copies import Bounds, Copies
from agents.controller.stores.database import Database
from agents.controller.stores.datasets import Datasets
from agents.controller.stores.hub import Hub
from agents.controller.stores.logread import LogQuery, LogReader
from agents.controller.stores.logstore import LogStore
from agents.controller.stores.problems import Problems
from agents.controller.stores.pruning import GRACE, Pruning
from agents.controller.stores.secretstore import SecretStore
from agents.controller.stores.trust import AllowedSigners, own_key
from agents.controller.sweeps.studies import Studies
from agents.controller.sweeps.sweeprun import Plant
from agents.controller.sweeps.sweeps import Sweeps
from agents.loops import loop
from jobs import __version__
from jobs.base.errors import NotFound, QuarterdeckError
from jobs.base.names import job_name
from jobs.base.places import database_file
from jobs.base.words import joined
from jobs.life.lifecycle import Note
from jobs.models.signers import Signers
from jobs.placement.nodehealth import Acknowledged
from jobs.spec.runas import RanksAs
from jobs.store import audit, reading, writing
from jobs.store.tables import NodeRow
from jobs.wire.views import JobDetail, JobView, NodeView, Problem, StatusView

log = logging.getLogger(__name__)

REGISTRY_EVERY = 1.0
MARK_PATIENCE = 2.0
"""Seconds that an orderly end waits for a registry which does not answer."""
AUDIT_EVERY = 5.0
"""Seconds between two checkpoints of the audit log, when there is something new in it."""
_TAIL_LINES = 20
"""Last lines of the first failing rank that `qd explain` and `qd job` show."""


class Controller:
    """Everything that the API needs.

    Args:
        state: folder of the registry, blobs and logs.
        database: the registry, open. database_url: its SQLAlchemy URL.
        cluster_id: by which nodes know whose attempts are whose; as the registry has it.
        blobs: the store of blobs; None for a folder in `state`.
        ray_address: what `kind: ray` jobs get as RAY_ADDRESS.
        copying: what copies of checkpoints may take of network and disk.
        prune_after: seconds after which a blob goes that nothing refers to.
        rules: the file of rules and channels of alerts; None for `alerts.yaml` in `state`.
        acts: who takes the steps of pipelines that are no jobs; None: nobody does.
        waiting: whether jobs that leave it open wait for nodes that are lost (`on_node_loss`).
        ranks_as: as whom ranks run.
        now: unix time. monotonic: a clock that never jumps. Both in seconds.
    """

    def __init__(
        self,
        *,
        state: Path,
        fabric: Fabric,
        database: Database,
        database_url: str,
        cluster_id: str,
        blobs: BlobStore | None = None,
        ray_address: Callable[[], str | None] = lambda: None,
        prune_after: float = GRACE,
        copying: Bounds | None = None,
        rules: Path | None = None,
        acts: Callable[[Controller], Acts] | None = None,
        waiting: bool = False,
        ranks_as: RanksAs = RanksAs(),  # noqa: B008 - immutable
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.state, self.fabric, self.now, self.monotonic = state, fabric, now, monotonic
        self.db, self.database_url, self.cluster_id = database, database_url, cluster_id
        self._studies = Studies(database_url, database.turn)
        self.blobs: BlobStore = blobs or FolderBlobs(state / "blobs", now)
        self.logs = LogStore(state / "logs")
        self.datasets = Datasets(self.db)
        self.secrets = SecretStore(state / "secrets")
        self.allowed_signers = AllowedSigners(state)
        self.audit_heads = AuditHeads(state, own_key(state))
        self.hub = Hub()
        self._continuity = Continuity(self.db, MarkFile(state / "registry.mark"))
        self.copies = Copies(state / "checkpoints", self.db, now, copying or Bounds())
        self.pruning = Pruning(self.blobs, self.db, self.hub, self.copies, state, now, prune_after)
        self.cluster = Cluster(monotonic)
        self._problems = Problems()
        self.links = Links(fabric, self._problems.tell, monotonic)
        self.lag = LoopLag()
        self.copier = Copier(
            self.copies,
            self.links,
            self.hub,
            now=now,
            monotonic=monotonic,
            tell=self._problems.tell,
            here=lambda node: self.cluster.node(node).boot_id == _boot_id(),
            # Made below, and asked by jobs that run: none does before `start`.
            copied=lambda live, copy: self.acts.copied(live, copy),
        )
        self.reconciler = Reconciler(
            cluster_id=cluster_id,
            database=self.db,
            fabric=fabric,
            links=self.links,
            cluster=self.cluster,
            hub=self.hub,
            blobs=self.blobs,
            datasets=self.datasets,
            secrets=self.secrets,
            copier=self.copier,
            now=now,
            monotonic=monotonic,
            ray_address=ray_address,
            newest_attempt=self.logs.newest,
            waiting=waiting,
            ranks_as=ranks_as,
        )
        self._intake = Intake(
            cluster_id=cluster_id,
            database=self.db,
            datasets=self.datasets,
            logs=self.logs,
            blobs=self.blobs,
            hub=self.hub,
            cluster=self.cluster,
            links=self.links,
            copier=self.copier,
            reconciler=self.reconciler,
            problems=self._problems,
            now=now,
        )
        self._membership = Membership(
            fabric,
            self.cluster,
            self.links,
            self._intake,
            self.reconciler,
            tell=self._problems.tell,
            monotonic=monotonic,
        )
        self.strays = Strays(self.links, cluster_id, self._intake.unknown)
        self.health = Health(
            database=self.db,
            reconciler=self.reconciler,
            links=self.links,
            cluster=self.cluster,
            hub=self.hub,
            problems=self._problems,
            now=now,
            monotonic=monotonic,
        )
        folder = state / "secrets"
        sweep_secrets = SecretStore(folder / "sweeps")
        self.sweeps = Sweeps(
            Plant(
                database=self.db,
                studies=self._studies,
                reconciler=self.reconciler,
                hub=self.hub,
                sweep_secrets=sweep_secrets,
                job_secrets=self.secrets,
                now=now,
                monotonic=monotonic,
                tell=self._problems.tell,
            )
        )
        service_plant = ServicePlant(
            database=self.db,
            reconciler=self.reconciler,
            links=self.links,
            hub=self.hub,
            cluster=cluster_id,
            address=lambda node: self.cluster.node(node).address,
            now=now,
            monotonic=monotonic,
            tell=self._problems.tell,
        )
        self.services = Services(service_plant)
        self.edge = Pushes(
            self.db,
            self.hub,
            self.blobs,
            now=self.now,
            monotonic=self.monotonic,
            tell=self._problems.tell,
        )
        self.monitors = Monitors(service_plant, self.services, self.blobs, self.datasets)
        self.evaluations = Evaluations(service_plant, self.blobs, self._last_words)
        self.acts: Acts = (acts or NoActs)(self)  # asked by runs alone: none runs before `start`
        flow_plant = FlowPlant(
            database=self.db,
            reconciler=self.reconciler,
            sweeps=self.sweeps,
            hub=self.hub,
            stores=Stores(
                self.blobs, SecretStore(folder / "pipelines"), self.secrets, sweep_secrets
            ),
            now=now,
            monotonic=monotonic,
            tell=self._problems.tell,
            acts=self.acts,
        )
        self.flows = Flows(flow_plant)
        self.schedules = Schedules(flow_plant, self.flows, SecretStore(folder / "schedules"))
        self.alerts = Alerts(
            self.db,
            self.hub,
            rules or state / "alerts.yaml",
            Conditions(self.cluster, self.reconciler, self._problems, state),
            self._problems.tell,
            now=now,
            monotonic=monotonic,
        )
        self._started = monotonic()
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    async def open(
        cls, *, state: Path, fabric: Fabric, database_url: str | None = None, **settings: Any
    ) -> Self:
        """Open the registry, and put the controller over it together.

        Args:
            database_url: an SQLAlchemy URL; None for SQLite in `state`.
            settings: see the class.

        Raises what `Database.open` and its first write do.
        """
        url = database_url or f"sqlite:///{database_file(state)}"
        database = _opened(state, url)
        try:
            cluster_id = await database.write(writing.cluster_id)
            return cls(
                state=state,
                fabric=fabric,
                database=database,
                database_url=url,
                cluster_id=cluster_id,
                **settings,
            )
        except BaseException:
            database.close()
            raise

    # -- life ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Load the registry and begin; returns before the fabric is there, so that the API answers."""
        restored = await self._continuity.broken()
        if restored:
            await self._tell_of_restored()
        await self._continuity.renew()

        def nodes(session: Session) -> list[NodeRow]:
            return list(session.exec(select(NodeRow)).all())

        for row in await self.db.read(nodes):
            node = self.cluster.node(row.name, row.address)
            node.drained, node.reason, node.boot_id = row.drained, row.reason, row.boot_id
            node.quarantine, node.acknowledged = (
                row.quarantine,
                Acknowledged.from_json(row.acknowledged),
            )
        await self.datasets.load()
        await self.copies.load()
        await self.reconciler.load(restored=restored)
        await self.sweeps.load()
        await self.services.load()
        await self.edge.load()
        await self.flows.load()
        await self.schedules.load()
        await self.alerts.load()
        self._tasks = [
            asyncio.create_task(self._membership.run(), name="membership"),
            asyncio.create_task(self.reconciler.run(), name="reconciler"),
            asyncio.create_task(self._watch_registry(), name="registry"),
            asyncio.create_task(self._check_registry(), name="registry-check"),
            asyncio.create_task(self._watch_audit(), name="audit"),
            asyncio.create_task(self.health.run(), name="health"),
            asyncio.create_task(self.lag.run(), name="lag"),
            asyncio.create_task(self.pruning.run(), name="pruning"),
            asyncio.create_task(self.services.run(), name="services"),
            asyncio.create_task(self.edge.run(), name="edge"),
            asyncio.create_task(self.monitors.run(), name="monitors"),
            asyncio.create_task(self.evaluations.run(), name="evaluations"),
            asyncio.create_task(self.schedules.run(), name="schedules"),
            asyncio.create_task(self.alerts.run(), name="alerts"),
            asyncio.create_task(self.alerts.delivery.run(), name="alerts-delivery"),
        ]

    async def _tell_of_restored(self) -> None:
        """Say what is known of the time after the backup, and give numbers above all that were given."""
        await self.db.write(writing.doubt)
        newest = max(await self.logs.run(self.logs.newest_job), self.secrets.newest_job())
        known = await self.db.read(writing.newest_job)
        text = "the registry is older than what was written last: it was restored, replaced or lost"
        if newest > known:
            first = job_name(known + 1)
            lost = first if newest == known + 1 else f"{first} to {job_name(newest)}"
            text += f". It does not know {lost}, of which there are logs or secrets here"
            await self.db.write(lambda session: writing.number_above(session, job=newest))
        await self._intake.say(Note("registry.restored", text, "warning"))
        self._problems.tell("restored", text)

    async def close(self) -> None:
        """Stop looking after things. What runs on the nodes runs on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.flows.close()
        await self.sweeps.close()
        await self.reconciler.close()
        await self.copier.close()
        await self.links.close()
        await self._intake.close()
        await self.fabric.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(MARK_PATIENCE):
                await self._continuity.renew()
        await self.note_audit_head()
        self.blobs.close()
        self.logs.close()
        self.db.close()

    async def _watch_registry(self) -> None:
        """Tell when nothing can be recorded, and try until something can."""
        await asyncio.sleep(REGISTRY_EVERY)
        await loop("registry", self._look_at_registry, REGISTRY_EVERY)

    async def _check_registry(self) -> None:
        """Once, beside all else: it takes as long as reading all of it."""
        if damage := await self.db.damage():
            self._problems.tell("damage", f"the registry is damaged: {damage}")

    async def _look_at_registry(self) -> None:
        with contextlib.suppress(QuarterdeckError):
            await self._continuity.watch()
        replaced = self.db.replaced
        self._problems.tell("registry file", replaced)
        problem = "" if replaced else self.db.problem
        self._problems.tell("registry", problem)
        if problem:
            with contextlib.suppress(QuarterdeckError):
                await self.db.write(writing.next_revision)

    async def _watch_audit(self) -> None:
        await loop("audit checkpoint", self.note_audit_head, AUDIT_EVERY)

    async def signers(self) -> Signers:
        """Whose signatures are believed now."""
        return Signers(self.cluster_id, await asyncio.to_thread(self.allowed_signers.read))

    async def note_audit_head(self) -> None:
        """Write down how far the audit log goes, beside the database. What the disk refuses is written
        the next time."""
        try:
            head = await self.db.read(audit.head)
            if head is not None:
                await asyncio.to_thread(self.audit_heads.note, Head(*head, self.now()))
        except QuarterdeckError as error:
            log.warning("audit checkpoint: %s", error.message)
        except Exception:
            log.exception("audit checkpoint")

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
        return await self.db.read(lambda s: reading.job_view(reading.get_job(s, number)))

    async def job_detail(self, number: int) -> JobDetail:
        """Everything about a job, with the last lines of ranks that failed first.

        Raises:
            NotFound: no such job.
        """
        sizes = await self.logs.run(self.logs.sizes, number)
        detail = await self.db.read(lambda s: reading.job_detail(s, number, sizes))
        for attempt in detail["attempts"]:
            failure = attempt["first_failure"]
            if failure is not None and failure["rank"] is not None:
                failure["tail"] = await self.logs.run(
                    self._tail, number, attempt["number"], failure["rank"]
                )
        live = self.reconciler.live.get(number)
        detail["checkpoint"] = copyview.view_of(self.copier, live, detail, self.now())
        if live is not None:
            detail["reason"] = self.reconciler.overlay(live.view)["reason"]
        return detail

    async def _last_words(self, job: int) -> str:
        """What the first failed rank of a job wrote last, where it ended with 2: a person's mistake."""
        for attempt in reversed((await self.job_detail(job))["attempts"]):
            failure = attempt["first_failure"]
            if failure is not None and failure["exit_code"] == 2:
                return next((line for line in reversed(failure["tail"]) if line.strip()), "")
        return ""

    def _tail(self, job: int, attempt: int, rank: int) -> list[str]:
        query = LogQuery(job=job, attempt=attempt, rank=rank, tail=_TAIL_LINES)
        return [line["line"] for line in LogReader(self.logs, query).read_on(final=True)]

    def complain(self, source: str, text: str) -> None:
        """Tell in `qd status` what is wrong with `source`; an empty text takes it back."""
        self._problems.tell(source, text)

    def problems(self) -> list[Problem]:
        found = self._problems.views() + self.strays.problems()
        for view in self.node_views():
            away = self.cluster.nodes[view["name"]].drained and not view["jobs"]
            if view["state"] in ("LOST", "SUSPECT") and not away:  # drained and gone is in order
                waiting = self.reconciler.losses.waiting_for(view["name"])
                found.append(
                    {
                        "what": f"node {view['name']} has been silent for {view['age']:.0f} s"
                        + (f", and {joined(waiting)} wait for it" if waiting else ""),
                        "fix": (
                            "Look at the machine. If it certainly has gone down: "
                            f"`qd confirm-dead {view['name']}` lets them restart."
                            if waiting
                            else "Its jobs are restarted elsewhere when their leases end; look at the "
                            f"machine. If it left for good: `qd forget {view['name']}`."
                        ),
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

    def _stalled(self) -> list[Problem]:
        """Jobs that make no progress: for people to know, though the cluster itself is well."""
        return [
            {
                "what": f"{view['id']} ({view['name']}) has stalled: {view['reason']}",
                "fix": f"`qd stacks {view['id']}` shows where every rank is; with `on_stall: restart` "
                "a job is restarted by itself.",
                "severity": "warning",
            }
            for live in self.reconciler.holding()
            if (view := self.reconciler.overlay(live.view)).get("stalled")
        ]

    async def status(self) -> StatusView:
        counts = await self.db.read(reading.state_counts)
        views = self.node_views()
        problems = self.problems()
        stalled = self._stalled()
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
            "problems": problems + stalled,
            "cluster_id": self.cluster_id,
            "uptime": round(self.monotonic() - self._started, 3),
            "pid": os.getpid(),
            "memory": psutil.Process().memory_info().rss,
            "ray": self.fabric.state,
        }
        if storage is not None:
            told["storage"] = storage
        maintenance = self.reconciler.losses.maintained()
        if maintenance is not None:
            told["maintenance"] = maintenance
        return told


def _opened(state: Path, url: str) -> Database:
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Database.open(url)


@functools.cache
def _boot_id() -> str:
    """Which machine this is, and since when; nodes tell the same of theirs."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"
