"""The controller put together: stores, links, reconciler, and what agents hand in."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import psutil
from sqlmodel import Session, select

from agents.controller.blobs import BlobStore
from agents.controller.cluster import Cluster
from agents.controller.database import Database
from agents.controller.fabric import Fabric
from agents.controller.hub import Hub
from agents.controller.links import Links
from agents.controller.live import Live
from agents.controller.logread import LogQuery, LogReader
from agents.controller.logstore import LogStore
from agents.controller.reconciler import Reconciler
from agents.controller.secretstore import SecretStore
from jobs import __version__, audit, queries, registry, wire
from jobs.errors import NotFound, QuarterdeckError
from jobs.lifecycle import Note
from jobs.names import job_name, parse_run
from jobs.registry import Caller
from jobs.tables import ArtifactRow, NodeRow, RankRow
from jobs.views import EventView, JobDetail, JobView, NodeView, Problem, StatusView

log = logging.getLogger(__name__)

T = TypeVar("T")

MEMBERSHIP_EVERY = 1.0
_READ_OUTPUT = 4 << 20
_TAIL_LINES = 20
"""Last lines of the first failing rank that `qd explain` and `qd job` show."""


class Controller:
    """Everything that the API needs, and the keeper of what agents bring.

    Args:
        state: folder of the registry, blobs and logs.
        database_url: an SQLAlchemy URL; None for SQLite in `state`.
        ray_address: what `kind: ray` jobs get as RAY_ADDRESS.
        now: unix time. monotonic: a clock that never jumps. Both in seconds.
    """

    def __init__(
        self,
        *,
        state: Path,
        fabric: Fabric,
        database_url: str | None = None,
        ray_address: Callable[[], str | None] = lambda: None,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.state, self.fabric, self.now, self.monotonic = state, fabric, now, monotonic
        self._ray_address = ray_address
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.db = Database.open(database_url or f"sqlite:///{state / 'registry.db'}")
        self.blobs = BlobStore(state / "blobs")
        self.logs = LogStore(state / "logs")
        self.secrets = SecretStore(state / "secrets")
        self.hub = Hub()
        self.cluster = Cluster(monotonic)
        self.links = Links(fabric, self, monotonic)
        self.cluster_id = ""
        self.reconciler: Reconciler
        self._started = monotonic()
        self._log_pool = ThreadPoolExecutor(2, thread_name_prefix="logs")
        self._problems: dict[str, str] = {}
        self._attempts: dict[str, tuple[int, int, int] | None] = {}  # key -> (job, number, epoch)
        self._metric_offsets: dict[tuple[int, int], int] = {}  # (epoch, rank) -> bytes ingested
        self._tasks: list[asyncio.Task[None]] = []

    # -- life ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Load the registry and begin; returns before the fabric is there, so that the API answers."""
        self.cluster_id = await self.db.write(registry.cluster_id)
        self.reconciler = Reconciler(
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

        def nodes(session: Session) -> list[NodeRow]:
            return list(session.exec(select(NodeRow)).all())

        for row in await self.db.read(nodes):
            node = self.cluster.node(row.name, row.address)
            node.drained, node.reason, node.boot_id = row.drained, row.reason, row.boot_id
        await self.reconciler.load()
        self._tasks = [
            asyncio.create_task(self._membership(), name="membership"),
            asyncio.create_task(self.reconciler.run(), name="reconciler"),
        ]

    async def close(self) -> None:
        """Stop looking after things. What runs on the nodes runs on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.reconciler.close()
        await self.links.close()
        await self.fabric.close()
        self._log_pool.shutdown(wait=True)
        self.db.close()

    async def _membership(self) -> None:
        """Keep the links in step with the fabric's members; join it again when it was lost."""
        joined = False
        while True:
            try:
                if not joined:
                    await self.fabric.connect()
                    await self.reconciler.rejoin()
                    joined = True
                    self.reconciler.wake()
                members = await self.fabric.nodes()
                present = {node.name for node in members}
                for member in members:
                    self.cluster.node(member.name, member.address).fabric = member
                for node in self.cluster.nodes.values():
                    if node.name not in present:
                        node.fabric = None
                await self.links.members(members)
                self.on_problem("ray", "")
            except QuarterdeckError as error:
                joined = False
                self.on_problem("ray", error.message)
            except Exception as error:
                joined = False
                log.exception("membership")
                self.on_problem("ray", f"internal error: {error!r}")
            await asyncio.sleep(MEMBERSHIP_EVERY)

    async def in_log_thread(self, fn: Callable[..., T], *args: Any) -> T:
        """Run blocking log I/O off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._log_pool, fn, *args)

    # -- what agents bring (links.Keeper) -----------------------------------------------------------

    async def on_hello(self, node: str, hello: wire.Hello) -> None:
        entry = self.cluster.node(node)
        entry.facts, entry.boot_id, entry.problems = (
            hello["facts"],
            hello["boot_id"],
            hello["problems"],
        )
        self.cluster.heard(node)
        now, address = self.now(), entry.address

        def write(session: Session) -> None:
            row = session.get(NodeRow, node) or NodeRow(
                name=node, address=address, first_seen=now, seen_at=now
            )
            row.address, row.seen_at, row.boot_id = address, now, hello["boot_id"]
            row.facts = dict(hello["facts"])
            session.add(row)

        await self.db.write(write)
        self.reconciler.wake()

    async def on_sample(self, node: str, sample: wire.NodeSample) -> None:
        self.cluster.heard(node)
        self.cluster.take_sample(node, sample)
        entry = self.cluster.nodes[node]
        self.hub.publish(
            "nodes", node, self.cluster.view(entry, self.reconciler.busy()), keep=False
        )

    async def on_logs(self, node: str, chunks: list[wire.LogChunk]) -> None:
        for chunk in chunks:
            found = await self._attempt(chunk["key"])
            if found is None:
                continue
            job, number, _ = found
            await self.in_log_thread(
                self.logs.append,
                job,
                number,
                chunk["rank"],
                chunk["offset"],
                chunk["data"],
                chunk["times"],
            )
            self.hub.touch(f"log:{job_name(job)}")
        if chunks:
            self.on_problem("storage", "")

    async def on_metrics(self, node: str, chunks: list[wire.MetricChunk]) -> None:
        if not chunks:
            return
        known = [(chunk, await self._attempt(chunk["key"])) for chunk in chunks]

        def write(session: Session) -> dict[tuple[int, int], int]:
            offsets = {}
            for chunk, found in known:
                if found is None:
                    continue
                job, _, epoch = found
                points = registry.ingest_metrics(
                    session, epoch, chunk["rank"], chunk["offset"], chunk["data"]
                )
                registry.note_objective(session, job, points)
                row = session.get(RankRow, (epoch, chunk["rank"]))
                if row is not None:
                    offsets[epoch, chunk["rank"]] = row.metric_offset
            return offsets

        self._metric_offsets.update(await self.db.write(write))
        for job in {found[0] for _, found in known if found is not None}:
            self.hub.touch(f"job:{job_name(job)}")
            self.hub.touch(f"metrics:{job_name(job)}")

    async def on_report(self, node: str, report: wire.AttemptReport, *, quiet: bool) -> bool:
        found = await self._attempt(report["key"])
        if found is None:
            return False  # of another cluster, or of a registry that was reset: not ours to touch
        job, number, epoch = found
        if report["epoch"] != epoch:
            return False
        live = self.reconciler.live.get(job)
        current = (
            live is not None and live.job.attempt is not None and live.job.attempt.epoch == epoch
        )
        if report["state"] != "ended":
            if current and live is not None:
                await self.reconciler.take_report(live, node, report)
            elif report["state"] == "running":
                await self._stop_stale(node, report)
            return False
        if not await self._all_here(job, number, epoch, report, quiet):
            return False
        for rank in report["ranks"]:
            await self.in_log_thread(self.logs.sync, job, number, rank["rank"])
        if current and live is not None:
            artifacts = await self._collect(live, node, report)

            def extra(session: Session) -> None:
                for artifact in artifacts:
                    registry.save_artifact(session, artifact)

            await self.reconciler.take_report(live, node, report, extra=extra)
        else:
            await self.db.write(lambda s: registry.save_ranks(s, epoch, node, report))
        self.hub.touch(f"log:{job_name(job)}")
        self._forget(report)
        return True

    async def cursors(
        self, node: str, reports: list[wire.AttemptReport]
    ) -> tuple[dict[str, dict[int, int]], dict[str, dict[int, int]]]:
        logs: dict[str, dict[int, int]] = {}
        metrics: dict[str, dict[int, int]] = {}
        for report in reports:
            found = await self._attempt(report["key"])
            if found is None or report["state"] == "staged":
                continue
            job, number, epoch = found
            for rank in report["ranks"]:
                number_ = rank["rank"]
                logs.setdefault(report["key"], {})[number_] = self.logs.size(job, number, number_)
                offset = await self._metric_offset(epoch, number_)
                metrics.setdefault(report["key"], {})[number_] = offset
        return logs, metrics

    def lease_of(self, key: str) -> float | None:
        found = self._attempts.get(key)
        live = self.reconciler.live.get(found[0]) if found else None
        if found is None or live is None or live.job.attempt is None:
            return None
        return live.spec.lease if live.job.attempt.epoch == found[2] else None

    def on_problem(self, source: str, text: str) -> None:
        if text and self._problems.get(source) != text:
            log.warning("%s: %s", source, text)
        if text:
            self._problems[source] = text
        else:
            self._problems.pop(source, None)

    # -- their parts --------------------------------------------------------------------------------

    async def _attempt(self, key: str) -> tuple[int, int, int] | None:
        """(job, attempt number, epoch) of an attempt's key; None when it is not of this registry."""
        if key in self._attempts:
            return self._attempts[key]
        prefix, _, rest = key.rpartition("-")
        if prefix != self.cluster_id:
            return None
        ref = parse_run(rest)

        def read(session: Session) -> tuple[int, int, int] | None:
            found = queries.epoch_of(session, ref.job, ref.attempt)
            return None if found is None else (ref.job, found[1], found[0])

        self._attempts[key] = await self.db.read(read)
        return self._attempts[key]

    async def _metric_offset(self, epoch: int, rank: int) -> int:
        if (epoch, rank) not in self._metric_offsets:

            def read(session: Session) -> int:
                row = session.get(RankRow, (epoch, rank))
                return row.metric_offset if row is not None else 0

            self._metric_offsets[epoch, rank] = await self.db.read(read)
        return self._metric_offsets[epoch, rank]

    async def _all_here(
        self, job: int, number: int, epoch: int, report: wire.AttemptReport, quiet: bool
    ) -> bool:
        """Whether all that an ended attempt wrote is stored."""
        for rank in report["ranks"]:
            if self.logs.size(job, number, rank["rank"]) < rank["log_size"]:
                return False
            # A metrics file may end in a torn line, which never comes: then quiet is the sign.
            offset = await self._metric_offset(epoch, rank["rank"])
            if offset < rank["metrics_size"] and not quiet:
                return False
        return True

    def _forget(self, report: wire.AttemptReport) -> None:
        found = self._attempts.pop(report["key"], None)
        if found is not None:
            for rank in report["ranks"]:
                self._metric_offsets.pop((found[2], rank["rank"]), None)

    async def _stop_stale(self, node: str, report: wire.AttemptReport) -> None:
        """An attempt that the registry has given up must not run."""
        with contextlib.suppress(QuarterdeckError):
            _, agent = self.links.agent(node)
            await agent.stop(
                {"key": report["key"], "epoch": report["epoch"], "grace": 10.0, "reason": "stale"}
            )

    async def _collect(
        self, live: Live, node: str, report: wire.AttemptReport
    ) -> list[ArtifactRow]:
        """Fetch the job's outputs from the node of rank 0, after success."""
        attempt = live.job.attempt
        first = any(rank["rank"] == 0 for rank in report["ranks"])
        if attempt is None or report["outcome"] != "done" or not first:
            return []
        _, agent = self.links.agent(node)
        rows = []
        for name, path in live.spec.outputs.items():
            digest, size = await self._fetch(agent, report["key"], path)
            if digest is None:
                await self._warn(live, f"output '{name}': the job did not write {path}")
                continue
            rows.append(
                ArtifactRow(
                    attempt_id=attempt.epoch,
                    name=name,
                    job_id=live.job.id,
                    path=path,
                    digest=f"sha256:{digest}",
                    size=size,
                )
            )
        return rows

    async def _fetch(self, agent: wire.AgentClient, key: str, path: str) -> tuple[str | None, int]:
        offset = 0
        with self.blobs.incoming() as incoming:
            while True:
                chunk = await agent.read_output(key, path, offset, _READ_OUTPUT)
                if chunk is None:
                    return None, 0
                if not chunk:
                    break
                await asyncio.to_thread(incoming.write, chunk)
                offset += len(chunk)
            return await asyncio.to_thread(incoming.commit), offset

    async def _warn(self, live: Live, message: str) -> None:
        now, note = self.now(), Note("job.output", message, "warning")
        await self.db.write(lambda s: registry.add_events(s, live.job.id, [note], now))

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
        sizes = await self.in_log_thread(self.logs.sizes, number)
        detail = await self.db.read(lambda s: queries.job_detail(s, number, sizes))
        for attempt in detail["attempts"]:
            failure = attempt["first_failure"]
            if failure is not None and failure["rank"] >= 0:
                failure["tail"] = await self.in_log_thread(
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
        """Take a node out of scheduling, or put it back. What runs there runs on.

        Raises:
            NotFound: no such node.
        """
        self.node_view(name)
        node, now = self.cluster.nodes[name], self.now()
        verb = "drained" if drained else "undrained"
        text = f"{name} {verb} by {who.user}" + (f": {reason}" if reason else "")
        note = Note(f"node.{verb}", text, node=name, user=who.user)

        def write(session: Session) -> list[EventView]:
            row = session.get(NodeRow, name) or NodeRow(
                name=name, address=node.address, first_seen=now, seen_at=now
            )
            row.drained, row.reason = drained, reason
            session.add(row)
            registry.add_events(session, None, [note], now)
            audit.append(
                session,
                at=now,
                user=who.user,
                uid=who.uid,
                action="node.drain" if drained else "node.undrain",
                target=name,
                data={"reason": reason},
            )
            session.flush()
            return queries.events(session, 0, 1, newest=True)

        events = await self.db.write(write)
        node.drained, node.reason = drained, reason
        for event in events:
            self.hub.publish("events", str(event["id"]), event)
        view = self.node_view(name)
        self.hub.publish("nodes", name, view, keep=False)
        self.reconciler.wake()
        return view

    def problems(self) -> list[Problem]:
        found: list[Problem] = [
            {"what": f"{source}: {text}", "fix": _fix(source), "severity": "error"}
            for source, text in sorted(self._problems.items())
        ]
        for view in self.node_views():
            if view["state"] in ("LOST", "SUSPECT"):
                found.append(
                    {
                        "what": f"node {view['name']} has been silent for {view['age']:.0f} s",
                        "fix": "Its jobs are restarted elsewhere when their leases end; look at the machine.",
                        "severity": "error" if view["state"] == "LOST" else "warning",
                    }
                )
        return found

    async def status(self) -> StatusView:
        counts = await self.db.read(queries.state_counts)
        views = self.node_views()
        problems = self.problems()
        present = [view for view in views if view["state"] != "LOST"]
        return {
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


def _fix(source: str) -> str:
    if source == "storage":
        return "Free disk space; nodes keep what is not stored yet, and it is fetched when there is room."
    if source == "ray":
        return "It is being restarted; jobs that run are not touched. See `qd doctor`."
    return "It is being tried again; `qd doctor` tells more."
