"""One link per node: the loop that syncs with its agent.

Each round renews leases, brings log bytes, metric lines and a telemetry sample, and tells what the
node's attempts are doing. An attempt's end is passed on only when all it wrote is stored here, so
SUCCEEDED means: everything is recorded.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Protocol

from agents.controller.nodes.fabric import Fabric, FabricNode
from jobs.base.errors import Conflict, QuarterdeckError, StorageFull, Unreachable
from jobs.wire import messages as wire

log = logging.getLogger(__name__)

WAIT = 5.0
"""Seconds an agent may hold a sync when it has nothing to tell. Telemetry comes each second anyway."""
RENEW_EVERY = 2.0
"""Seconds after which leases are renewed though a round is under way: less than half the shortest."""
MAX_BYTES = 4 << 20
BACKOFF = (0.2, 0.5, 1.0, 2.0, 5.0)
"""Seconds between tries to reach an agent; the last value holds."""


class Keeper(Protocol):
    """What the link hands things to (the controller)."""

    async def on_hello(self, node: str, hello: wire.Hello) -> None: ...
    async def on_sample(self, node: str, sample: wire.NodeSample) -> None: ...
    async def on_logs(self, node: str, chunks: list[wire.LogChunk]) -> None: ...
    async def on_metrics(self, node: str, chunks: list[wire.MetricChunk]) -> None: ...
    async def on_report(self, node: str, report: wire.AttemptReport, *, quiet: bool) -> bool:
        """Take what a node says of an attempt; True when all of it is stored durably here, so that
        the agent may forget it. `quiet`: the agent had no more of its metrics to give."""
        ...

    def fetching(self, node: str, key: str) -> bool:
        """Whether asking on at once about an ended attempt brings nothing: its files are on their way,
        or nobody here knows it."""
        ...

    async def cursors(
        self, node: str, reports: list[wire.AttemptReport]
    ) -> tuple[dict[str, dict[int, int]], dict[str, dict[int, int]]]:
        """Bytes held durably of each log and metrics file: ({key: {rank: n}}, the same)."""
        ...

    def lease_of(self, key: str) -> float | None:
        """Seconds of lease for an attempt that should run, None for one that should not."""
        ...


@dataclass(slots=True)
class Link:
    """The state of one link. `bounds` says until when (this process's monotonic clock) an attempt's
    lease can last at most, `confirmed` until when the agent has said that it will; `clock` is the
    agent's newest reading and `clock_at` when it came; `renewed_at` is when leases were last renewed."""

    node: FabricNode
    keeper: Keeper
    agent: wire.AgentClient | None = None
    online: bool = False
    clock: float = 0.0
    clock_at: float = 0.0
    renewed_at: float = 0.0
    bounds: dict[str, float] = field(default_factory=dict)
    confirmed: dict[str, float] = field(default_factory=dict)
    reports: dict[str, wire.AttemptReport] = field(default_factory=dict)
    forget: set[str] = field(default_factory=set)
    hurry: bool = False  # an attempt has ended and not all of it is here yet: ask on at once
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def grant(self, key: str, lease: float) -> float:
        """A lease on the agent's clock, and the bound that it implies on ours.

        The base is a reading that the agent itself gave: however late the message arrives, the lease
        cannot end after `clock_at + lease` here (see jobs.wire.messages).
        """
        self.bounds[key] = max(self.bounds.get(key, 0.0), self.clock_at + lease)
        return self.clock + lease


class Links:
    """All links, kept in step with the fabric's membership.

    Args:
        tell: takes what is wrong with a source at the moment; an empty text says that it is over.
        monotonic: a clock that never jumps, seconds.
    """

    def __init__(
        self, fabric: Fabric, tell: Callable[[str, str], None], monotonic: Callable[[], float]
    ) -> None:
        self._fabric, self._tell, self._monotonic = fabric, tell, monotonic
        self.links: dict[str, Link] = {}

    async def members(self, nodes: list[FabricNode], keeper: Keeper) -> None:
        """Start links to new incarnations of nodes, end those to incarnations that are gone.

        Args:
            keeper: whom new links hand things to.
        """
        alive = {node.name: node for node in nodes}
        for name, link in list(self.links.items()):
            if name not in alive or alive[name].id != link.node.id:
                await self._end(link)
                self._well(name)  # nobody asks it any more
        for name, node in alive.items():
            known = self.links.get(name)
            if known is not None and known.tasks:
                continue
            link = Link(node, keeper)
            if known is not None:  # leases outlive the agent's incarnation: keep their bounds
                link.bounds, link.confirmed = known.bounds, known.confirmed
            self.links[name] = link
            link.tasks = [
                asyncio.create_task(self._run(link), name=f"link-{name}"),
                asyncio.create_task(self._keep_leases(link), name=f"leases-{name}"),
            ]

    async def forget(self, name: str) -> None:
        """Let go of a node that is no member any more, and of the bounds of its leases."""
        link = self.links.pop(name, None)
        if link is not None:
            await self._end(link)
        self._well(name)

    def _well(self, name: str) -> None:
        """Complaints about a node, or by it, count no longer."""
        self._tell(f"node {name}", "")
        self._tell(f"agent {name}", "")

    async def _end(self, link: Link) -> None:
        link.online, link.agent = False, None
        for task in link.tasks:
            task.cancel()
        await asyncio.gather(*link.tasks, return_exceptions=True)
        link.tasks = []

    async def close(self) -> None:
        for link in self.links.values():
            await self._end(link)

    def agent(self, node: str) -> tuple[Link, wire.AgentClient]:
        """A node's link and agent.

        Raises:
            Unreachable: there is no contact with it now.
        """
        link = self.links.get(node)
        if link is None or link.agent is None or not link.online:
            raise Unreachable(f"there is no contact with node {node}")
        return link, link.agent

    async def renew(self, node: str) -> None:
        """Renew a node's leases now. Raises Unreachable, and what the agent does."""
        link, _ = self.agent(node)
        await self._sync(link)

    async def _run(self, link: Link) -> None:
        name, failures, full = link.node.name, 0, False
        while True:
            try:
                link.agent = await self._fabric.agent(link.node)
                await self._hello(link)
                failures = 0
                self._tell(f"node {name}", "")
                seen = 0
                while True:
                    seen = await self._round(link, seen)
                    if full:
                        full = False
                        self._tell("storage", "")
            except Unreachable as error:
                link.online = False
                failures += 1
                if failures > 2:
                    self._tell(f"node {name}", error.message)
            except Conflict as error:  # it refuses to talk to us: it is of another version
                link.online = False
                failures += 1
                self._tell(f"node {name}", error.message)
            except StorageFull as error:
                failures, full = failures + 1, True
                self._tell("storage", error.message)
            except QuarterdeckError as error:
                failures += 1
                self._tell(f"node {name}", error.message)
            except Exception as error:  # a link must go on whatever one round brought
                failures += 1
                log.exception("link to %s", name)
                self._tell(f"node {name}", f"internal error: {error!r}")
            await asyncio.sleep(BACKOFF[min(failures, len(BACKOFF) - 1)])

    async def _hello(self, link: Link) -> None:
        assert link.agent is not None
        hello = await link.agent.hello()
        if hello["protocol"] != wire.PROTOCOL:
            raise Unreachable(
                f"the agent of {link.node.name} speaks protocol {hello['protocol']}, this controller "
                f"{wire.PROTOCOL}",
                "Run the same version on all nodes; what runs there goes on until its lease ends.",
            )
        # Before anything is stored: leases are renewed also while nothing can be.
        link.clock, link.clock_at, link.online = hello["clock"], self._monotonic(), True
        link.reports = {report["key"]: report for report in hello["attempts"]}
        await link.keeper.on_hello(link.node.name, hello)
        for report in hello["attempts"]:
            await link.keeper.on_report(link.node.name, report, quiet=False)

    async def _round(self, link: Link, seen: int) -> int:
        assert link.agent is not None
        name = link.node.name
        # Not of what is to be forgotten: the keeper would have to look it up anew, and hold it.
        wanted = [report for key, report in link.reports.items() if key not in link.forget]
        logs, metrics = await link.keeper.cursors(name, wanted)
        reply = await self._sync(
            link,
            seen=seen,
            wait=0.0 if link.hurry else WAIT,
            logs=logs,
            metrics=metrics,
            forget=sorted(link.forget),
            max_bytes=MAX_BYTES,
        )
        await self._take(link, reply, asked=metrics.keys())
        return reply["revision"]

    async def _sync(
        self,
        link: Link,
        *,
        seen: int = 0,
        wait: float = 0.0,
        logs: dict[str, dict[int, int]] | None = None,
        metrics: dict[str, dict[int, int]] | None = None,
        forget: list[str] | None = None,
        max_bytes: int = 0,
    ) -> wire.SyncReply:
        """Renew the leases, and ask for what is named."""
        assert link.agent is not None
        leases, booked = {}, {}
        for key, report in link.reports.items():
            lease = link.keeper.lease_of(key)
            if lease is not None and report["state"] in ("running", "stopping"):
                leases[key] = link.grant(key, lease)
                booked[key] = link.clock_at + lease
        request: wire.SyncRequest = {
            "protocol": wire.PROTOCOL,
            "seen": seen,
            "wait": wait,
            "leases": leases,
            "logs": logs or {},
            "metrics": metrics or {},
            "forget": forget or [],
            "max_bytes": max_bytes,
        }
        reply = await link.agent.sync(request)
        link.clock, link.online = reply["clock"], True
        link.clock_at = link.renewed_at = self._monotonic()
        link.reports = {report["key"]: report for report in reply["attempts"]}
        for key, until in leases.items():
            # An agent of before leases were reported says nothing; it complains of what it cannot do.
            if key in link.reports and link.reports[key].get("lease", until) >= until:
                link.confirmed[key] = max(link.confirmed.get(key, 0.0), booked[key])
        return reply

    async def _keep_leases(self, link: Link) -> None:
        """Renew leases while a round is held up, by a database that is locked or a disk that is full.
        A lease says that we are in contact, not that we have room to write."""
        while True:
            await asyncio.sleep(RENEW_EVERY / 2)
            due = self._monotonic() - link.renewed_at >= RENEW_EVERY
            if not (due and link.online and link.agent is not None):
                continue
            with contextlib.suppress(QuarterdeckError):  # the rounds tell of it
                reply = await self._sync(link)
                if reply["sample"] is not None:
                    await link.keeper.on_sample(link.node.name, reply["sample"])

    async def _take(self, link: Link, reply: wire.SyncReply, asked: Collection[str]) -> None:
        """`asked`: the keys of attempts whose metrics this is the answer about."""
        name = link.node.name
        self._tell(f"agent {name}", "; ".join(reply["problems"]))
        if reply["sample"] is not None:
            await link.keeper.on_sample(name, reply["sample"])
        # Ranks must be known before their metrics come, and be told ended only after.
        for report in reply["attempts"]:
            if report["state"] != "ended":
                await link.keeper.on_report(name, report, quiet=False)
        await link.keeper.on_metrics(name, reply["metrics"])
        await link.keeper.on_logs(name, reply["logs"])
        full = sum(len(c["data"]) for c in (*reply["logs"], *reply["metrics"])) >= MAX_BYTES
        pending = {chunk["key"] for chunk in reply["metrics"]}
        ended = [report for report in reply["attempts"] if report["state"] == "ended"]
        link.forget &= {report["key"] for report in ended}
        link.hurry = False
        for report in ended:
            if report["key"] in link.forget:
                continue
            # Of an attempt that was over before it was first heard of, nothing was asked yet.
            quiet = not full and report["key"] in asked and report["key"] not in pending
            if await link.keeper.on_report(name, report, quiet=quiet):
                link.forget.add(report["key"])
                link.bounds.pop(report["key"], None)
                link.confirmed.pop(report["key"], None)
            elif not link.keeper.fetching(name, report["key"]):
                link.hurry = True
