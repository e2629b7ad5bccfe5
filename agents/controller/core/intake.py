"""What agents bring: the keeper at the controller's end of every link (`links.Keeper`)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from sqlmodel import Session

from agents.controller.core.collecting import Collector
from agents.controller.core.copying import Copier
from agents.controller.core.madesets import MadeSets
from agents.controller.core.reconciler import Reconciler
from agents.controller.nodes.cluster import Cluster
from agents.controller.nodes.links import Links
from agents.controller.stores.blobs import BlobStore
from agents.controller.stores.database import Database
from agents.controller.stores.datasets import Datasets
from agents.controller.stores.hub import Hub
from agents.controller.stores.logstore import LogStore
from agents.controller.stores.problems import Problems
from jobs.base.errors import InvalidInput, QuarterdeckError
from jobs.base.names import job_name, parse_key
from jobs.base.words import joined
from jobs.life.lifecycle import Note
from jobs.store import metricpoints, reading, runfacts, writing
from jobs.store.tables import NodeRow, RankRow
from jobs.wire import messages as wire

_NOT_COUNTED: wire.Leftover = {"files": 0, "bytes": 0}
"""What an agent says of it that does not count."""


class Intake:
    """Stores what agents tell, and passes on what the reconciler must know. See `links.Keeper`.

    Args:
        now: unix time, seconds.
    """

    def __init__(
        self,
        *,
        cluster_id: str,
        database: Database,
        datasets: Datasets,
        logs: LogStore,
        blobs: BlobStore,
        hub: Hub,
        cluster: Cluster,
        links: Links,
        copier: Copier,
        reconciler: Reconciler,
        problems: Problems,
        now: Callable[[], float],
    ) -> None:
        self.db, self.logs, self.blobs = database, logs, blobs
        self.hub, self.cluster, self._problems, self.now = hub, cluster, problems, now
        self._datasets = datasets
        self.cluster_id = cluster_id
        self.links, self.copier, self.reconciler = links, copier, reconciler
        self._collecting = Collector(database, blobs, hub, now)
        self._attempts: dict[str, tuple[int, int, int] | None] = {}  # key -> (job, number, epoch)
        self._metric_offsets: dict[tuple[int, int], int] = {}  # (epoch, rank) -> bytes ingested
        self._log_sizes: dict[tuple[int, int, int], int] = {}  # by job, attempt number and rank
        # Node and key of what has ended, and of which not everything is here yet.
        self._ended: set[tuple[str, str]] = set()
        self._counted_there: set[tuple[str, str]] = set()  # whose files the node still counts
        self._met: set[tuple[str, str]] = set()  # the same of strays that were told of
        self._above = (0, 0)  # job number and epoch that nodes know of

    async def on_hello(self, node: str, hello: wire.Hello) -> None:
        entry = self.cluster.node(node)
        entry.facts, entry.boot_id, entry.problems = (
            hello["facts"],
            hello["boot_id"],
            hello["problems"],
        )
        await self._number_above(hello)  # first: nothing is placed on it before it was heard
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
        known = {report["key"] for report in hello["attempts"]}
        await self.reconciler.losses.restarted(node, hello.get("boot", ""), known)
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
                stored = metricpoints.ingest_metrics(
                    session, epoch, chunk["rank"], chunk["offset"], chunk["data"]
                )
                metricpoints.note_objective(session, job, epoch, stored.points)
                runfacts.save(session, job, chunk["rank"], stored.facts)
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
            await self._meet_stray(node, report)
            if report["state"] == "staged":  # nothing runs, so no lease will ever end it
                await self._stop_stale(node, report)
            return False  # not ours to touch
        job, number, epoch = found
        if report["epoch"] != epoch:
            return False
        live = self.reconciler.live.get(job)
        attempt = live.job.attempt if live is not None else None
        current = attempt is not None and attempt.epoch == epoch
        if report["state"] != "ended":
            if live is not None and current:
                await self.reconciler.take_report(live, node, report)
                if report["state"] == "running":
                    self.copier.told(live, report["key"], node, report)
            over = attempt is None or not current or attempt.over_on(node)
            if over and report["state"] != "stopping":
                await self._stop_stale(node, report)
            return False
        if report.get("left", _NOT_COUNTED) is None:
            self._counted_there.add((node, report["key"]))
            return False
        self._counted_there.discard((node, report["key"]))
        if not await self._all_here(job, number, epoch, report, quiet):
            if (node, report["key"]) not in self._ended:
                # Perhaps nobody ever heard that it ran: its metrics need rows to belong to.
                await self.db.write(lambda s: writing.save_ranks(s, epoch, node, report))
                self._ended.add((node, report["key"]))
            return False
        for rank in report["ranks"]:
            await self.logs.run(self.logs.sync, job, number, rank["rank"])
        if live is not None and current:
            left = await self._collecting.of(node, live, self.links.agent(node)[1], report)
            if left is None:
                return False
            rows, now = left.rows, self.now()
            made = MadeSets()
            if any(output.data for output in live.spec.outputs.values()):
                made = await asyncio.to_thread(MadeSets.of, self.blobs, live.spec, rows)
            if left.lacking:
                report = {**report, "outcome": "failed", "reason": _lacking(left.lacking)}

            def extra(session: Session) -> None:
                if report["outcome"] == "done":
                    made.record(session, live, rows, now)
                for row in rows:
                    writing.save_artifact(session, row)

            await self.reconciler.take_report(live, node, report, extra=extra)
            made.note(self._datasets)
            self.hub.announce(made.events)
        else:
            await self.db.write(lambda s: writing.save_ranks(s, epoch, node, report))
        self.hub.touch(f"log:{job_name(job)}")
        self._forget(node, report)
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
        if self.unknown(key):
            return None
        live = self.reconciler.live.get(parse_key(key).job)
        if live is None or live.job.attempt is None or live.key(self.cluster_id) != key:
            return None
        return self.reconciler.lease(live)

    def fetching(self, node: str, key: str) -> bool:
        return self.unknown(key) or self._collecting.busy(node, key)

    async def close(self) -> None:
        """End what is being fetched; it is fetched anew by the next controller."""
        await self._collecting.close()

    # -- their parts --------------------------------------------------------------------------------

    async def _attempt(self, key: str) -> tuple[int, int, int] | None:
        """(job, attempt number, epoch) of an attempt's key; None when it is not of this registry."""
        if key in self._attempts:
            return self._attempts[key]
        try:
            ref = parse_key(key)
        except InvalidInput:
            self._attempts[key] = None
            return None
        live = self.reconciler.live.get(ref.job)
        attempt = live.job.attempt if live is not None else None
        if live is not None and attempt is not None and live.key(self.cluster_id) == key:
            if live.job.state == "PLACING":
                # No node was told of it, as far as the registry knows: it was restored, and this ran after
                # its backup. It may still be withdrawn, so nothing can be recorded of it yet.
                return None
            self._attempts[key] = ref.job, attempt.number, attempt.epoch
        elif ref.cluster != self.cluster_id:
            self._attempts[key] = None
        else:
            epoch = await self.db.read(lambda session: reading.epoch_by_key(session, ref))
            self._attempts[key] = None if epoch is None else (ref.job, ref.attempt, epoch)
        return self._attempts[key]

    def unknown(self, key: str) -> bool:
        """Whether a key was looked up, and is not of this registry."""
        return key in self._attempts and self._attempts[key] is None

    # -- what another registry gave -----------------------------------------------------------------

    async def _number_above(self, hello: wire.Hello) -> None:
        """A node may know of more than a registry that was restored does."""
        given = hello.get("given", {}).get(self.cluster_id)
        if given is None:
            return
        job, epoch = max(given["job"], self._above[0]), max(given["epoch"], self._above[1])
        if (job, epoch) == self._above:
            return

        def write(session: Session) -> bool:
            higher = writing.number_above(session, job=job, epoch=epoch)
            if higher:
                writing.doubt(session)
            return higher

        higher = await self.db.write(write)
        if higher and self.reconciler.doubts.distrust():
            what = "jobs or attempts that this registry never gave: it was restored"
            self._problems.tell("restored", f"{hello['node']} knows of {what}")
        self._above = job, epoch

    async def _meet_stray(self, node: str, report: wire.AttemptReport) -> None:
        """Say so once, and keep the job that it may be a copy of from being placed meanwhile."""
        try:
            key = parse_key(report["key"])
        except InvalidInput:
            return
        live = self.reconciler.live.get(key.job) if key.cluster == self.cluster_id else None
        if live is not None:
            live.newest = max(live.newest, key.attempt)
            if report["state"] != "ended":
                self.reconciler.doubts.hold(live)
        if (node, report["key"]) in self._met:
            return
        self._met.add((node, report["key"]))
        whose = "" if key.cluster == self.cluster_id else f" of the cluster {key.cluster}"
        text = f"{node} holds {key.run}{whose}, which this registry never gave ({report['state']})"
        await self.say(Note("node.stray", text, "warning", node=node))

    async def say(self, note: Note) -> None:
        """Store an event that is about no job of ours."""
        now = self.now()
        self.hub.announce(await self.db.write(lambda s: writing.add_events(s, None, [note], now)))

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

    def _forget(self, node: str, report: wire.AttemptReport) -> None:
        self._ended.discard((node, report["key"]))
        self._collecting.drop(node, report["key"])
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


def _lacking(names: list[str]) -> str:
    """Why a job fails that has not written what it was required to."""
    quoted = joined([f"'{name}'" for name in names])
    return f"it did not write the required output{'s' if len(names) > 1 else ''} {quoted}"
