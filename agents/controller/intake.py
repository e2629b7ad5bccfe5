"""What agents bring: the keeper at the controller's end of every link (`links.Keeper`)."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import Callable

from sqlmodel import Session

from agents.controller.blobs import BlobStore
from agents.controller.cluster import Cluster
from agents.controller.database import Database
from agents.controller.hub import Hub
from agents.controller.links import Links
from agents.controller.live import Live
from agents.controller.logstore import LogStore
from agents.controller.problems import Problems
from agents.controller.reconciler import Reconciler
from jobs import metricstore, queries, registry, wire
from jobs.errors import InvalidInput, NotFound, QuarterdeckError
from jobs.lifecycle import Note
from jobs.names import CHECKPOINT, job_name, parse_run
from jobs.snapshot import FileEntry, Manifest
from jobs.tables import ArtifactRow, NodeRow, RankRow

_READ_OUTPUT = 4 << 20


class Intake:
    """Stores what agents tell, and passes on what the reconciler must know. See `links.Keeper`.

    `links` and `reconciler` are set when they are made: the three know each other.

    Args:
        now: unix time, seconds.
    """

    links: Links
    reconciler: Reconciler

    def __init__(
        self,
        *,
        database: Database,
        logs: LogStore,
        blobs: BlobStore,
        hub: Hub,
        cluster: Cluster,
        problems: Problems,
        now: Callable[[], float],
    ) -> None:
        self.db, self.logs, self.blobs = database, logs, blobs
        self.hub, self.cluster, self._problems, self.now = hub, cluster, problems, now
        self.cluster_id = ""
        self._attempts: dict[str, tuple[int, int, int] | None] = {}  # key -> (job, number, epoch)
        self._metric_offsets: dict[tuple[int, int], int] = {}  # (epoch, rank) -> bytes ingested
        self._log_sizes: dict[tuple[int, int, int], int] = {}  # by job, attempt number and rank
        self._ended: set[str] = set()  # keys that ended, and of which not everything is here yet

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
        if self.hub.watched("nodes"):
            view = self.cluster.view(self.cluster.nodes[node], self.reconciler.busy())
            self.hub.publish("nodes", node, view, keep=False)

    async def on_logs(self, node: str, chunks: list[wire.LogChunk]) -> None:
        for chunk in chunks:
            found = await self._attempt(chunk["key"])
            if found is None:
                continue
            job, number, _ = found
            place = (job, number, chunk["rank"])
            self._log_sizes.pop(place, None)  # not known until it is written
            self._log_sizes[place] = await self.logs.run(
                self.logs.append, *place, chunk["offset"], chunk["data"], chunk["times"]
            )
            self.hub.touch(f"log:{job_name(job)}")

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
                stored = metricstore.ingest_metrics(
                    session, epoch, chunk["rank"], chunk["offset"], chunk["data"]
                )
                metricstore.note_objective(session, job, stored.points)
                if stored.offset is not None:
                    offsets[epoch, chunk["rank"]] = stored.offset
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
        attempt = live.job.attempt if live is not None else None
        current = attempt is not None and attempt.epoch == epoch
        if report["state"] != "ended":
            if live is not None and current:
                await self.reconciler.take_report(live, node, report)
            over = attempt is None or not current or attempt.over_on(node)
            if over and report["state"] != "stopping":
                await self._stop_stale(node, report)
            return False
        if not await self._all_here(job, number, epoch, report, quiet):
            if report["key"] not in self._ended:
                # Perhaps nobody ever heard that it ran: its metrics need rows to belong to.
                await self.db.write(lambda s: registry.save_ranks(s, epoch, node, report))
                self._ended.add(report["key"])
            return False
        for rank in report["ranks"]:
            await self.logs.run(self.logs.sync, job, number, rank["rank"])
        if live is not None and current:
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
            sizes, offsets = {}, {}
            for rank in report["ranks"]:
                which = rank["rank"]
                sizes[which] = self._log_size(job, number, which)
                offset = self._metric_offsets.get((epoch, which))
                if offset is None:
                    offset = await self._metric_offset(epoch, which)
                offsets[which] = offset
            if sizes:
                logs[report["key"]], metrics[report["key"]] = sizes, offsets
        return logs, metrics

    def lease_of(self, key: str) -> float | None:
        # From memory alone: leases are renewed while the registry does not answer.
        if not key.startswith(f"{self.cluster_id}-"):
            return None
        live = self.reconciler.live.get(parse_run(key.rpartition("-")[2]).job)
        if live is None or live.job.attempt is None or live.key(self.cluster_id) != key:
            return None
        return live.spec.lease

    def on_problem(self, source: str, text: str) -> None:
        self._problems.tell(source, text)

    # -- their parts --------------------------------------------------------------------------------

    async def _attempt(self, key: str) -> tuple[int, int, int] | None:
        """(job, attempt number, epoch) of an attempt's key; None when it is not of this registry."""
        if key in self._attempts:
            return self._attempts[key]
        prefix, _, rest = key.rpartition("-")
        if prefix != self.cluster_id:
            return None
        ref = parse_run(rest)
        live = self.reconciler.live.get(ref.job)
        attempt = live.job.attempt if live is not None else None
        if attempt is not None and attempt.number == ref.attempt:
            self._attempts[key] = ref.job, attempt.number, attempt.epoch
            return self._attempts[key]

        def read(session: Session) -> tuple[int, int, int] | None:
            found = queries.epoch_of(session, ref.job, ref.attempt)
            return None if found is None else (ref.job, found[1], found[0])

        self._attempts[key] = await self.db.read(read)
        return self._attempts[key]

    def _log_size(self, job: int, attempt: int, rank: int) -> int:
        """Bytes that are held of a log. Remembered, since every round asks it of every rank."""
        place = (job, attempt, rank)
        if place not in self._log_sizes:
            self._log_sizes[place] = self.logs.size(*place)
        return self._log_sizes[place]

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
            if self._log_size(job, number, rank["rank"]) < rank["log_size"]:
                return False
            # A metrics file may end in a torn line, which never comes: then quiet is the sign.
            offset = await self._metric_offset(epoch, rank["rank"])
            if offset < rank["metrics_size"] and not quiet:
                return False
        return True

    def _forget(self, report: wire.AttemptReport) -> None:
        self._ended.discard(report["key"])
        found = self._attempts.pop(report["key"], None)
        if found is not None:
            for rank in report["ranks"]:
                self._metric_offsets.pop((found[2], rank["rank"]), None)
                self._log_sizes.pop((found[0], found[1], rank["rank"]), None)

    async def _stop_stale(self, node: str, report: wire.AttemptReport) -> None:
        """A part that the registry has given up must not run, nor hold what was staged for it."""
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
            try:
                digest, size = await self._fetch(agent, report["key"], path)
            except InvalidInput as error:  # a folder, a link or a FIFO: only the job is to blame
                await self._warn(live, f"output '{name}': {error.message}")
                continue
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
        if live.spec.checkpoint.keep:
            try:
                digest, size = await self._fetch_checkpoint(agent, report["key"])
            except (InvalidInput, NotFound) as error:
                await self._warn(live, f"checkpoint: {error.message}")
                digest, size = None, 0
            if digest is not None:
                rows.append(
                    ArtifactRow(
                        attempt_id=attempt.epoch,
                        name=CHECKPOINT,
                        job_id=live.job.id,
                        path="",
                        digest=digest,
                        size=size,
                    )
                )
        return rows

    async def _fetch_checkpoint(self, agent: wire.AgentClient, key: str) -> tuple[str | None, int]:
        """Store a job's checkpoint folder; gives the digest of its manifest and the size of its files,
        None for an empty one."""
        entries: list[FileEntry] = []
        for file in await agent.list_checkpoint(key):
            offset = 0
            with self.blobs.incoming() as incoming:
                while chunk := await agent.read_checkpoint(key, file["path"], offset, _READ_OUTPUT):
                    await asyncio.to_thread(incoming.write, chunk)
                    offset += len(chunk)
                digest = await asyncio.to_thread(incoming.commit)
            entries.append(FileEntry(file["path"], file["mode"], offset, digest))
        if not entries:
            return None, 0
        manifest = Manifest.of(entries)
        data = io.BytesIO(manifest.to_bytes())
        await asyncio.to_thread(self.blobs.put, manifest.digest, data)
        return manifest.digest, manifest.total_bytes

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
