"""Copies of checkpoints, made while the ranks train, so that a job outlives its nodes.

A node says that another checkpoint is whole; what is whole on all nodes of the gang is then read from them,
a chunk at a time, at a bounded rate, and recorded when every byte of it is here and has the digest that its
node gave. The next attempt begins with the newest copy on every node that has nothing newer
(docs/checkpoints.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from agents.controller.core.live import Live
from agents.controller.core.transfers import receive
from agents.controller.nodes.links import Links
from agents.controller.stores.copies import Copies
from agents.controller.stores.hub import Hub
from jobs.base.errors import InvalidInput, NotFound, QuarterdeckError, StorageFull
from jobs.base.names import job_name
from jobs.base.units import format_size
from jobs.checkpoints import image
from jobs.checkpoints.image import Image, Source
from jobs.snapshots.manifest import FileEntry, Manifest
from jobs.store.copies import Copy
from jobs.store.copytables import CopyRow
from jobs.wire import messages as wire

log = logging.getLogger(__name__)

AT_ONCE = 2
"""Jobs whose checkpoints are copied at a time."""
AGAIN = 5.0
"""Seconds after a try that came to nothing."""
AGAIN_FULL = 30.0
"""The same, after the disk was full."""
SETTLE = 10.0
"""Seconds that the next attempt waits for a copy under way."""
LAST = 60.0
"""Seconds for a last copy from nodes that the job leaves."""
LOOK_IN = 0.5
"""Seconds between two looks at whether a node has read its files."""

What = Literal["latest", "all"]


class _NotYet(Exception):
    """No checkpoint is whole on all nodes."""


@dataclass(slots=True)
class _Job:
    """What is known of a job's checkpoints. `revisions`: node -> what it said last; `copied`: the same at
    the last copy; `due`: not before (monotonic)."""

    key: str
    epoch: int
    nodes: tuple[str, ...]
    revisions: dict[str, int] = field(default_factory=dict)
    copied: dict[str, int] = field(default_factory=dict)
    due: float = 0.0
    task: asyncio.Task[None] | None = None
    settling: asyncio.Task[None] | None = None
    problem: str = ""
    progress: str = ""


class Pace:
    """Lets bytes pass at a rate, for all who ask.

    Args:
        rate: bytes a second.
    """

    def __init__(self, rate: float, monotonic: Callable[[], float]) -> None:
        self._rate, self._monotonic, self._free = rate, monotonic, 0.0

    async def take(self, count: int) -> None:
        """Wait until so many bytes more may have passed."""
        now = self._monotonic()
        self._free = max(self._free, now) + count / self._rate
        if self._free > now:
            await asyncio.sleep(self._free - now)


class Copier:
    """Args:
    now: unix time. monotonic: a clock that never jumps. Both in seconds.
    tell: takes what is wrong with a source, in words.
    here: whether a node is the head's own machine, with which its copies would be lost.
    copied: takes a job's newest copy; perhaps again, after a restart or an error. What it raises is a problem
        of the copies, and it is asked again.
    """

    def __init__(
        self,
        copies: Copies,
        links: Links,
        hub: Hub,
        *,
        now: Callable[[], float],
        monotonic: Callable[[], float],
        tell: Callable[[str, str], None],
        here: Callable[[str], bool],
        copied: Callable[[Live, Copy], Awaitable[None]],
    ) -> None:
        self.copies = copies
        self._here, self._copied = here, copied
        self._links, self._hub, self._tell = links, hub, tell
        self._now, self._monotonic = now, monotonic
        self._jobs: dict[int, _Job] = {}
        self._lasts: set[asyncio.Task[None]] = set()
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._pace = Pace(copies.bounds.rate, monotonic)

    # -- while a job runs ---------------------------------------------------------------------------

    def told(self, live: Live, key: str, node: str, report: wire.AttemptReport) -> None:
        """A node has told of a running attempt; a copy is begun when there is something new, and it is
        time. Asked with every report, so it costs next to nothing."""
        revision = report.get("checkpoints", 0)
        attempt = live.job.attempt
        if not revision or attempt is None or not self.copying(live):
            return
        job = self._jobs.get(live.job.id)
        if job is None or job.key != key:
            if job is not None and job.task is not None and not job.task.done():
                return  # the next round will find it ended
            nodes = tuple(one.node for one in attempt.allocations)
            job = self._jobs[live.job.id] = _Job(key, attempt.epoch, nodes)
        job.revisions[node] = revision
        idle = job.task is None or job.task.done()
        if idle and job.revisions != job.copied and self._monotonic() >= job.due:
            job.task = asyncio.create_task(self._follow(live, job), name=f"copy-j{live.job.id}")

    def copying(self, live: Live) -> bool:
        """Whether checkpoints of a job are copied. On the head's own machine, only when that is asked for."""
        attempt = live.job.attempt
        if live.spec.copying == "off":
            return False
        return (
            live.spec.copying_asked
            or attempt is None
            or not all(self._here(one.node) for one in attempt.allocations)
        )

    async def _follow(self, live: Live, job: _Job) -> None:
        """One try, and when the next one may be."""
        began, again = self._monotonic(), AGAIN
        problem = ""
        try:
            async with self._turns:
                await self._copy(live, job)
            again = live.spec.copying_every - (self._monotonic() - began)
        except _NotYet:
            pass
        except StorageFull as error:
            again, problem = AGAIN_FULL, error.message
        except QuarterdeckError as error:
            problem = error.message
        except Exception as error:
            log.exception("copying the checkpoints of j%d", live.job.id)
            problem = f"internal error: {error!r}"
        finally:
            job.due, job.progress = self._monotonic() + max(0.0, again), ""
            self._say(live, job, problem)

    def _say(self, live: Live, job: _Job, problem: str) -> None:
        if problem and problem != job.problem:
            log.warning("the checkpoints of j%d are not copied: %s", live.job.id, problem)
        job.problem = problem
        stuck = [f"j{number}: {other.problem}" for number, other in self._jobs.items()]
        text = next((text for text in stuck if not text.endswith(": ")), "")
        self._tell("checkpoints", f"{text}; training goes on" if text else "")
        self._hub.touch(f"job:{job_name(live.job.id)}")

    async def _copy(self, live: Live, job: _Job) -> None:
        """Raises _NotYet, and what keeps it from being copied."""
        what = live.spec.copying
        if what == "off":
            return
        revisions = dict(job.revisions)
        agents = {}
        for node in job.nodes:
            agents[node] = self._links.agent(node)[1]
        try:
            held = await asyncio.gather(*(_held(agent, job.key, what) for agent in agents.values()))
            found = image.newest(dict(zip(agents, held, strict=True)), what)
            if found is None:
                raise _NotYet
            await self._store(live, job, agents, found)
            job.copied = revisions
        finally:
            for agent in agents.values():
                with contextlib.suppress(QuarterdeckError):
                    await agent.hold(job.key, "")

    async def _store(
        self, live: Live, job: _Job, agents: Mapping[str, wire.AgentClient], found: Image
    ) -> None:
        number, began = live.job.id, self._monotonic()
        manifest = Manifest.of(
            FileEntry(file.path, file.mode, file.size, file.sha256, file.link)
            if file.link is None
            else FileEntry(file.path, 0o644, 0, "", file.link)
            for file in found.files.values()
        )
        known = self.copies.of(number)
        if known and known[-1].digest == manifest.digest:
            await self._copied(live, known[-1])
            return
        lacking = await self.copies.make_room(number, manifest)
        sources = {file.sha256: file for file in found.files.values()}
        total, sent = sum(size for _, size in lacking), 0
        for digest, size in lacking:
            job.progress = f"{format_size(sent)} of {format_size(total)}"
            await self._fetch(agents, job.key, sources[digest])
            sent += size
        row = CopyRow(
            job_id=number,
            attempt_id=job.epoch,
            digest=manifest.digest,
            names=list(found.names),
            step=found.step,
            at=found.at,
            copied_at=self._now(),
            seconds=round(self._monotonic() - began, 3),
            files=len(manifest.files),
            size=manifest.total_bytes,
            sent=sent,
            sources=_times(found),
        )
        copy = await self.copies.record(row, manifest, live.spec.checkpoint.keep)
        self.copies.done(number)
        await self._copied(live, copy)

    async def _fetch(self, agents: Mapping[str, wire.AgentClient], key: str, file: Source) -> None:
        """Raises InvalidInput when it is not any more what its node said."""
        place: wire.Place = "held" if file.held else "checkpoint"
        path = file.sha256 if file.held else file.path
        read = functools.partial(agents[file.node].read_file, key, place, path)
        size = 0
        with self.copies.blobs.incoming() as incoming:
            async with contextlib.aclosing(receive(read)) as chunks:
                async for chunk in chunks:
                    await asyncio.to_thread(incoming.write, chunk)
                    size += len(chunk)
                    if size > file.size:
                        break
                    await self._pace.take(len(chunk))
            if size != file.size or incoming.digest != file.sha256:
                raise InvalidInput(
                    f"{file.path} on {file.node} was overwritten while it was copied",
                    "Write to another name and rename it: quarterdeck.atomic_write does.",
                )
            await asyncio.to_thread(incoming.commit)

    # -- before the next attempt --------------------------------------------------------------------

    def concerns(self, job: int) -> bool:
        """Whether anything was copied of a job, or could be."""
        return job in self._jobs or bool(self.copies.of(job))

    async def resume(self, live: Live, key: str, node: str) -> wire.Resume | None:
        """What the attempt with this key begins with on a node, once no copy is being made any more."""
        attempt = live.job.attempt
        assert attempt is not None
        nodes = [one.node for one in attempt.allocations]
        job = self._jobs.get(live.job.id)
        if job is not None and job.key != key:
            if job.settling is None:
                job.settling = asyncio.create_task(self._settle(live, job, nodes))
            await asyncio.shield(job.settling)
        copy = await self.copies.newest(live.job.id)
        if copy is None:
            return None
        return _resume(copy, nodes, node)

    async def _settle(self, live: Live, job: _Job, nodes: list[str]) -> None:
        """Wait for a copy under way; and take a last one when the job leaves nodes that are well."""
        task = job.task
        if task is not None and not task.done():
            await asyncio.wait({task}, timeout=SETTLE)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if set(nodes) != set(job.nodes):
            # Nodes that had nothing to say are not waited for; of the others all must answer.
            job.nodes = tuple(node for node in job.nodes if node in job.revisions)
            await self._last_copy(live, job)
        self.copies.done(live.job.id)

    def ended(self, live: Live, key: str) -> None:
        """A job is over. Of one whose releases become versions, the last ones are still copied."""
        job, attempt = live.job.id, live.job.attempt
        known = self._jobs.pop(job, None)
        if known is not None and known.task is not None:
            known.task.cancel()
        if attempt is not None and live.spec.publishes:
            nodes = tuple(one.node for one in attempt.allocations)
            known = known or _Job(key, attempt.epoch, nodes)
            task = asyncio.create_task(self._last(live, known), name=f"copy-last-j{job}")
            self._lasts.add(task)
            task.add_done_callback(self._lasts.discard)
            return
        self.copies.done(job)
        if known is not None and known.problem:
            self._tell("checkpoints", "")

    async def _last(self, live: Live, job: _Job) -> None:
        """What it wrote last."""
        if job.task is not None:
            await asyncio.gather(job.task, return_exceptions=True)
        job.copied = {}
        self._say(live, job, await self._last_copy(live, job))
        self.copies.done(live.job.id)

    async def _last_copy(self, live: Live, job: _Job) -> str:
        """Copy once, within a while; why nothing came of it, in words."""
        try:
            async with asyncio.timeout(LAST):
                await self._copy(live, job)
        except _NotYet:
            pass
        except TimeoutError:
            return f"the last copy was not done within {LAST:g} s"
        except QuarterdeckError as error:
            return error.message
        return ""

    def standing(self, job: int) -> tuple[str, str]:
        """How far a copy under way is, and why none is made; both in words, or empty."""
        known = self._jobs.get(job)
        return (known.progress, known.problem) if known is not None else ("", "")

    async def close(self) -> None:
        tasks = [task for job in self._jobs.values() for task in (job.task, job.settling) if task]
        tasks += self._lasts
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _held(agent: wire.AgentClient, key: str, what: What) -> list[wire.HeldUnit]:
    """What a node holds of a job's checkpoints; nothing when it has none."""
    while True:
        try:
            reply = await agent.hold(key, what)
        except NotFound:
            return []
        if reply["state"] == "ready":
            return reply["units"]
        await asyncio.sleep(LOOK_IN)


def _times(found: Image) -> dict[str, float]:
    """Node -> the time of its newest file."""
    times: dict[str, float] = {}
    for file in found.files.values():
        if file.link is None:
            times[file.node] = max(times.get(file.node, 0.0), file.mtime)
    return times


def _resume(copy: Copy, nodes: list[str], node: str) -> wire.Resume:
    """On the nodes that a copy came from, each has its own share of it, unless that was lost."""
    moved = not set(copy.sources) <= set(nodes)
    return {
        "digest": copy.digest,
        "at": copy.at,
        "mine": copy.sources.get(node),
        "moved": moved,
    }
