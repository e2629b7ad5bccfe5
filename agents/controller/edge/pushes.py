"""All pushes: a task for each host that has something to do, and the one way to change a push.

Level-triggered: what is to be done follows from the registry (`jobs.edge.push.todo`), each part of it may be
done twice, and what came of it is stored, with its events and audit rows, before anything else is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from sqlmodel import Session

from agents.controller.edge import ssh
from agents.controller.edge.ssh import Refused
from agents.controller.services.front import ourselves
from agents.controller.stores.blobs import BlobStore
from agents.controller.stores.database import Database
from agents.controller.stores.hub import Hub
from jobs.base.errors import InvalidInput, NotFound, QuarterdeckError, StorageFull, Unreachable
from jobs.base.times import rfc3339
from jobs.edge import push as machine
from jobs.edge import remote
from jobs.edge.fleet import Fleet, Host
from jobs.edge.push import Event, Push, Todo
from jobs.edge.remote import Looked, Release
from jobs.snapshots.manifest import Manifest
from jobs.store import edges as store
from jobs.store.edgetables import EdgePushRow
from jobs.store.writing import Caller
from jobs.wire.edgeviews import EdgeView, HasView
from jobs.wire.views import EventView

log = logging.getLogger(__name__)

T = TypeVar("T")

WITHIN = 60.0
"""Seconds that a small script may take."""
CONNECT = 30.0
"""Seconds that connecting may add to what a script may take."""
HASHING = 1800.0
"""Seconds that reading and hashing a release may take on a slow host."""
A_FILE = 86_400.0
"""Seconds that a file may take while bytes arrive: ssh notices a link that is gone."""
DELAYS = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds before a host that was not reached is asked again; the last value holds."""
LOOK_AGAIN = 1.0
"""Seconds between two runs of a health command that did not succeed."""


class Again(Unreachable):
    """What failed is worth another try."""


class Ours(Again):
    """The registry or the store of blobs cannot go on at the moment: no host is to blame."""


@dataclass(slots=True)
class Kept:
    """The newest push of a fleet, as the registry holds it."""

    row: EdgePushRow
    push: Push
    fleet: Fleet
    tasks: dict[str, tuple[Todo, asyncio.Task[None]]] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def hosts(self) -> dict[str, Host]:
        return {host.url: host for host in self.fleet.places()}


class Pushes:
    """Owns the pushes.

    Args:
        now: unix time. monotonic: never jumps. Both in seconds.
        tell: says what is wrong with a source at the moment, "" that nothing is.
    """

    def __init__(
        self,
        database: Database,
        hub: Hub,
        blobs: BlobStore,
        *,
        now: Callable[[], float],
        monotonic: Callable[[], float],
        tell: Callable[[str, str], None],
    ) -> None:
        self._database, self._hub, self._blobs = database, hub, blobs
        self._now, self._monotonic, self._tell = now, monotonic, tell
        self._kept: dict[str, Kept] = {}
        self._wake = asyncio.Event()

    async def load(self) -> None:
        for row in await self._database.read(store.newest):
            self._complain(self._keep(row).push)

    def _keep(self, row: EdgePushRow) -> Kept:
        self._kept[row.fleet] = Kept(row, store.push_of(row), Fleet.from_json(row.spec))
        return self._kept[row.fleet]

    async def run(self) -> None:
        """Bring what is to be brought, for ever."""
        try:
            while True:
                self._wake.clear()
                for kept in list(self._kept.values()):
                    self._look(kept)
                await self._wake.wait()
        finally:
            tasks = [task for kept in self._kept.values() for _, task in kept.tasks.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _look(self, kept: Kept) -> None:
        """Have a task for each host that has something to do, and none that does something else."""
        wanted = machine.todo(kept.push)
        for url, (what, task) in list(kept.tasks.items()):
            if task.done():
                del kept.tasks[url]
            elif wanted.get(url) != what:
                task.cancel()
        for url, what in wanted.items():
            if url not in kept.tasks and len(kept.tasks) < kept.fleet.parallel:
                task = asyncio.create_task(self._work(kept, url, what), name=f"edge {url}")
                task.add_done_callback(lambda _: self._wake.set())
                kept.tasks[url] = what, task

    async def _work(self, kept: Kept, url: str, what: Todo) -> None:
        """Do it, as often as it takes."""
        do = {"send": self._send, "switch": self._switch, "return": self._return}[what]
        since, tries = self._monotonic(), 0
        while True:
            before, event = kept.push.hosts[url].sent, None
            try:
                await do(kept, url, kept.hosts[url])
                return
            except Unreachable as error:
                if kept.push.hosts[url].sent > before or isinstance(error, Ours):
                    since, tries = self._monotonic(), 0
                reason = (
                    f"not reached: {error.message}" if type(error) is Unreachable else error.message
                )
                late = self._monotonic() - since > kept.fleet.patience
                event = machine.Failed(url, reason) if late else machine.Stuck(url, reason)
            except QuarterdeckError as error:
                event = machine.Failed(url, error.message)
            except Exception as error:
                log.exception("edge")
                event = machine.Failed(url, f"internal error: {error!r}")
            try:
                await self._apply(kept, event)
                if isinstance(event, machine.Failed):
                    return
            except Ours as error:
                log.warning("edge %s: %s", url, error.message)
            await asyncio.sleep(DELAYS[min(tries, len(DELAYS) - 1)])
            tries += 1

    async def _stored(self, call: Callable[..., T], *args: object) -> T:
        """Ask the store of blobs, on a thread. Raises Ours."""
        try:
            return await asyncio.to_thread(call, *args)
        except (StorageFull, Unreachable) as error:
            raise Ours(error.message, error.hint) from None

    async def _send(self, kept: Kept, url: str, host: Host) -> None:
        row = kept.row
        release = await self._stored(
            self._release, row.model, row.version, row.digest, kept.push.number
        )
        parts = release.parts()
        asked = "".join(f"{sha}\n" for sha in parts)
        lines = await ssh.run(host, remote.sizes(host.path), text=asked, within=WITHIN)
        if len(lines) != len(parts):
            raise Again("it does not say which files it has")
        if not all(line.strip().isdecimal() for line in lines):
            raise Again(f"it says what is no size: {min(lines)[:100]}")
        have = {sha: int(line) for sha, line in zip(parts, lines, strict=True)}
        have = {sha: size if size <= parts[sha] else 0 for sha, size in have.items()}
        await self._apply(kept, machine.Sent(url, sum(have.values())))
        for sha, size in parts.items():
            if have[sha] == size and size:
                continue
            path = await self._stored(self._blobs.local, f"sha256:{sha}")
            file: tuple[Path, int] = path, have[sha]
            try:
                await ssh.run(
                    host, remote.append(host.path, sha, have[sha]), file=file, within=A_FILE
                )
            except Refused as error:  # the disk is full, or another connection still writes
                raise Again(f"a file was not written: {error.message}") from None
            have[sha] = size
            await self._apply(kept, machine.Sent(url, sum(have.values())))
        code, lines = await ssh.ended(
            host, remote.complete(host.path, release), text=release.hashes(), within=HASHING
        )
        if code == remote.DAMAGED:
            raise Again("files were damaged on the way; they are sent again")
        if code:
            raise Refused(
                f"its release is not complete: {' '.join(lines[-3:])[:300]} (exit code {code})"
            )
        await self._apply(kept, machine.Sent(url, release.size, whole=True))

    def _release(self, model: str, version: str, digest: str, number: int) -> Release:
        """The files of a push. Blocking. Raises InvalidInput for what cannot be sent."""
        manifest = Manifest.from_bytes(self._blobs.read(digest))
        if any(one.link is not None for one in manifest.files):
            raise InvalidInput(
                f"{version} has symbolic links", "Register it with files in their place."
            )
        files = {one.path: (one.sha256, one.size) for one in manifest.files}
        return Release.of(model, version.rpartition(":")[2], number, files)

    def _name(self, kept: Kept) -> str:
        number = kept.row.version.rpartition(":")[2]
        return remote.release_name(kept.row.model, number, kept.push.number)

    async def _switch(self, kept: Kept, url: str, host: Host) -> None:
        name, fleet = self._name(kept), kept.fleet
        await ssh.run(host, remote.switch(host.path, name), within=WITHIN)
        if fleet.health is not None:
            script = remote.health(host.path, name, fleet.health)
            until = self._monotonic() + fleet.health_within
            while True:
                try:
                    code, lines = await ssh.ended(
                        host, script, within=fleet.health_within + CONNECT
                    )
                except ssh.Silent:
                    code, lines = 124, ["it did not end"]
                if code == 0:
                    break
                if self._monotonic() >= until:
                    said = " ".join(line.removeprefix("| ") for line in lines[-3:])[:300]
                    raise Refused(
                        f"its health command ended with {code}: {said or 'without a word'}"
                    )
                await asyncio.sleep(LOOK_AGAIN)
        with contextlib.suppress(QuarterdeckError):  # there is room for one more
            await ssh.run(host, remote.prune(host.path, name, fleet.keep), within=WITHIN)
        await self._apply(kept, machine.Switched(url))

    async def _return(self, kept: Kept, url: str, host: Host) -> None:
        await ssh.run(host, remote.back(host.path, self._name(kept)), within=WITHIN)
        await self._apply(kept, machine.Returned(url))

    # -- the one way to change a push ---------------------------------------------------------------

    async def _apply(self, kept: Kept, event: Event, who: Caller | None = None) -> None:
        # Shielded: a task that is cancelled must not leave memory behind what the registry holds.
        await asyncio.shield(asyncio.ensure_future(self._change(kept, event, who or ourselves())))

    async def _change(self, kept: Kept, event: Event, who: Caller) -> None:
        async with kept.lock:
            now = self._now()
            result = machine.handle(kept.push, event, now)
            if result.push == kept.push and not result.notes:
                return
            try:
                events = await self._database.write(
                    lambda session: store.save(session, result.push, result.notes, who, now)
                )
            except (StorageFull, Unreachable) as error:
                raise Ours(error.message, error.hint) from None
            kept.push, kept.row.changed_at = result.push, now
            self._publish(events)
            self._complain(kept.push)
            self._wake.set()

    def _complain(self, push: Push) -> None:
        failed = push.phase in ("failing", "failed")
        self._tell(f"edge {push.fleet}", push.reason if failed else "")

    def _publish(self, events: Sequence[EventView]) -> None:
        for told in events:
            self._hub.publish("events", str(told["id"]), told)

    # -- what people ask ----------------------------------------------------------------------------

    async def push(
        self,
        fleet: Fleet,
        model: str,
        version: str,
        digest: str,
        who: Caller,
        check: Callable[[Session], object],
    ) -> EdgeView:
        """Record a push, durably, and begin.

        Args:
            check: refuses in the transaction that records it.

        Raises:
            Conflict: the fleet gets another version just now. InvalidInput: a file's name cannot be sent.
        """
        release = await asyncio.to_thread(self._release, model, version, digest, 0)
        now = self._now()

        def write(session: Session) -> tuple[EdgePushRow, list[EventView]]:
            check(session)
            return store.add(session, fleet, model, version, digest, release.size, who, now)

        row, events = await self._database.write(write)
        self._publish(events)
        self._tell(f"edge {fleet.name}", "")
        kept = self._keep(row)
        self._wake.set()
        return self.view(kept.push.fleet)

    async def rollback(self, fleet: str, who: Caller) -> EdgeView:
        """Raises NotFound, and Conflict when no host has it."""
        await self._apply(self._find(fleet), machine.Rollback(who.user), who)
        return self.view(fleet)

    def _find(self, fleet: str) -> Kept:
        kept = self._kept.get(fleet)
        if kept is None:
            raise NotFound(f"there is no fleet '{fleet}'", "`qd edge` lists them.")
        return kept

    def views(self) -> list[EdgeView]:
        return [self.view(fleet) for fleet in sorted(self._kept)]

    def view(self, fleet: str) -> EdgeView:
        """Raises NotFound."""
        kept = self._find(fleet)
        push, row = kept.push, kept.row
        return {
            "fleet": push.fleet,
            "push": push.number,
            "version": push.version,
            "phase": push.phase,
            "wave": push.wave + 1,
            "waves": max(at.wave for at in push.hosts.values()) + 1,
            "reason": push.reason,
            "size": push.size,
            "user": row.user,
            "created_at": rfc3339(row.created_at),
            "changed_at": rfc3339(row.changed_at),
            "hosts": [
                {
                    "url": url,
                    "wave": at.wave + 1,
                    "phase": at.phase,
                    "sent": at.sent,
                    "reason": at.reason,
                }
                for url, at in push.hosts.items()
            ],
        }

    async def look(self, fleet: str) -> EdgeView:
        """The same with what each host has, which is asked now. Raises NotFound."""
        kept = self._find(fleet)
        room = asyncio.Semaphore(kept.fleet.parallel)

        async def of(url: str, host: Host) -> tuple[str, HasView]:
            async with room:
                return url, await self._has(kept, url, host)

        found = dict(await asyncio.gather(*(of(url, host) for url, host in kept.hosts.items())))
        view = self.view(fleet)
        for one in view["hosts"]:
            one["has"] = found[one["url"]]
        return view

    async def _has(self, kept: Kept, url: str, host: Host) -> HasView:
        error, seen = "", Looked("")
        try:
            seen = remote.looked(await ssh.run(host, remote.look(host.path), within=HASHING))
        except QuarterdeckError as failed:
            error = failed.message
        wrong = bool(seen.altered or seen.unknown)
        if kept.push.hosts[url].phase == "done":
            wrong = wrong or seen.release != self._name(kept)
        return {
            "version": remote.version_of(seen.release),
            "release": seen.release,
            "altered": list(seen.altered),
            "unknown": list(seen.unknown),
            "drift": wrong and not error,
            "error": error,
        }
