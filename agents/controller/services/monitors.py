"""Monitors: windows of what services have seen, each compared with a reference by a job of its own.

Level-triggered, like services. A look and its job are recorded in one transaction, and so are what the job
found, the events about it, and what follows for the next window: a controller that is killed at any moment
finds either that the look is still to come, or that it is under way, or what it came to.

The lines of a window travel as files of the job's work folder. Once the job is over it forgets its snapshot,
so the lines go with the blobs that nothing refers to; only a reference stays.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from typing import Any

from sqlmodel import Session

from agents.controller.services import inferences
from agents.controller.services.front import Plant, ourselves
from agents.controller.services.kept import Serving
from agents.controller.services.services import Services
from agents.controller.stores.blobs import BlobStore
from agents.controller.stores.datasets import Datasets
from agents.loops import loop
from jobs.base.errors import Conflict, InvalidInput, QuarterdeckError
from jobs.base.names import job_name
from jobs.base.states import TERMINAL
from jobs.base.times import rfc3339
from jobs.base.words import counted
from jobs.data.names import parse_ref
from jobs.life.lifecycle import Note
from jobs.services.monitoring import Status, due, judged, window
from jobs.services.watching import MonitorSpec
from jobs.snapshots.manifest import FileEntry, Manifest
from jobs.spec.job import JobSpec
from jobs.store import audit, monitors, writing
from jobs.store.entering import Entered, Entry, Submission, enter_jobs
from jobs.store.monitortables import MonitorRow, MonitorRunRow
from jobs.store.servicetables import DeploymentRow
from jobs.store.tables import JobRow
from jobs.store.writing import Caller
from jobs.wire.monitorviews import MonitorRunView, MonitorView
from jobs.wire.views import EventView

log = logging.getLogger(__name__)

LOOK_EVERY = 1.0
AGAIN = 60.0
"""Seconds until a look that could not begin is tried again."""
SETTLED = 2.0
"""Seconds after which what was answered is in the log: a scheduled window ends so long ago."""
LARGEST = 8 << 20
"""Bytes of a report."""
NAMED = 3
"""Features that an event names."""
_STATUSES = ("ok", "drift", "not enough data")


@dataclass(slots=True)
class Look:
    """A window that is about to be looked at."""

    serving: Serving
    spec: MonitorSpec
    who: Caller
    since: float
    until: float
    scheduled: bool
    found: inferences.Window = field(default_factory=inferences.Window)

    def row(self, state: str, now: float, **more: Any) -> MonitorRunRow:
        return MonitorRunRow(
            deployment_id=self.serving.row.id or 0,
            version=self.serving.version,
            since=self.since,
            until=self.until,
            scheduled=self.scheduled,
            user=self.who.user,
            requests=self.found.seen,
            state=state,
            created_at=now,
            **more,
        )


class Monitors:
    """Looks at windows that are due, and at those that people ask for."""

    def __init__(
        self, plant: Plant, services: Services, blobs: BlobStore, datasets: Datasets
    ) -> None:
        self._plant, self._services = plant, services
        self._blobs, self._datasets = blobs, datasets
        self._not_before: dict[str, float] = {}  # of looks that could not begin, monotonic
        self._lock = asyncio.Lock()

    async def run(self) -> None:
        """Look after monitors, for ever."""
        await loop("monitors", self._pass, LOOK_EVERY, partial(self._plant.tell, "monitors"))

    async def _pass(self) -> None:
        for run, deployment, job in await self._plant.database.read(monitors.running):
            if job is None or job.state in TERMINAL:
                await self._finish(run, deployment, job)
        for serving in self._services.serving():
            spec = serving.spec.monitor
            if spec is None or self._plant.monotonic() < self._not_before.get(serving.key, 0.0):
                continue
            row = await self._row(serving)
            now = self._plant.now() - SETTLED
            if not due(monitors.watch_of(row), spec.every, now):
                continue
            since, until = window(monitors.watch_of(row), spec.every, now)
            try:
                async with self._lock:
                    await self._look(Look(serving, spec, ourselves(), since, until, True))
                self._plant.tell(f"monitor {serving.key}", "")
            except Conflict:
                continue  # the window before, or one that a person asked for
            except QuarterdeckError as error:
                self._not_before[serving.key] = self._plant.monotonic() + AGAIN
                self._plant.tell(f"monitor {serving.key}", error.message)

    async def _row(self, serving: Serving) -> MonitorRow:
        number, since = serving.row.id or 0, serving.since
        key = number, serving.version
        known = await self._plant.database.read(lambda session: session.get(MonitorRow, key))
        if known is not None:  # looked at each second: most often there is nothing to write
            return known
        return await self._plant.database.write(
            lambda session: monitors.monitor(session, number, serving.version, since)
        )

    # -- a look -------------------------------------------------------------------------------------

    async def ask(
        self,
        name: str,
        target: str | None,
        who: Caller,
        *,
        last: float | None = None,
        rebase: bool = False,
    ) -> MonitorRunView:
        """Look at a window now. It raises no alert, and the next scheduled one is not moved by it.

        Args:
            last: seconds; without, the monitor's interval.
            rebase: take the window as the reference instead.

        Raises:
            NotFound, Conflict: nothing serves there, or its window is being looked at.
            InvalidInput: no interpreter here has what it needs.
        """
        serving = await self._services.found(name, target)
        spec, now = serving.spec.monitor or MonitorSpec(), self._plant.now()
        since = now - (last or spec.every)
        if not rebase and spec.reference is None:  # a reference is not compared with itself
            since = max(since, (await self._row(serving)).reference_at or 0.0)
        look = Look(serving, spec, who, since, now, False)
        async with self._lock:
            return await self._look(look, rebase=rebase)

    async def _look(self, look: Look, *, rebase: bool = False) -> MonitorRunView:
        known = await self._row(look.serving)
        plant, serving = self._plant, look.serving
        for run, _, _ in await plant.database.read(monitors.running):
            if (run.deployment_id, run.version) == (serving.row.id, serving.version):
                raise Conflict(
                    f"a window of {serving.key} is being compared already",
                    "See `qd monitor --history`.",
                )
        row, version = serving.row, serving.version
        jobs = await plant.database.read(
            lambda session: monitors.jobs_that_served(
                session, row.name, row.target, version, look.since, serving.held
            )
        )
        look.found = await inferences.window(
            plant.database, plant.links, plant.cluster, jobs, version, look.since, look.until
        )
        least, seen = look.spec.least, look.found.seen
        if seen < least:
            reason = f"{counted(seen, 'request')} were logged; {least} are wanted"
            if look.found.missing:
                reason += f" ({'; '.join(look.found.missing[:3])})"
            return await self._record(look, "not enough data", reason)
        if rebase or (known.reference is None and look.spec.reference is None):
            digest = await asyncio.to_thread(self._put, look.found.data)
            reason = f"{counted(seen, 'request')} are the reference of {version} from now on"
            return await self._record(look, "reference", reason, reference=f"sha256:{digest}")
        spec = self._job(look, await self._data(look.spec))
        manifest = await asyncio.to_thread(self._files, look, known)
        return await self._begin(look, spec, manifest)

    async def _data(self, spec: MonitorSpec) -> dict[str, str]:
        if spec.reference is None:
            return {}
        return await self._datasets.pinned({"reference": parse_ref(spec.reference)})

    def _job(self, look: Look, data: Mapping[str, str]) -> JobSpec:
        return JobSpec.from_json(
            {
                "name": f"monitor-{look.serving.row.name}"[:63],
                "command": ["python", "-m", "quarterdeck_monitor"],
                "python": look.spec.python or own_python(),
                "resources": {"cpu": 1},
                "timeout": 3600,
                "max_restarts": 1,
                "outputs": {"report": {"path": "report.json", "required": True}},
                "tags": {"monitor": look.serving.row.name},
                "data": dict(data),
            }
        )

    def _put(self, data: bytes) -> str:
        with self._blobs.incoming() as incoming:
            incoming.write(data)
            return incoming.commit()

    def _files(self, look: Look, known: MonitorRow) -> Manifest:
        spec = look.spec
        task = {
            "features": list(spec.features),
            "least": spec.least,
            "level": spec.level,
            "limit": spec.limit,
        }
        entries = [
            FileEntry(name, 0o644, len(data), self._put(data))
            for name, data in (
                ("task.json", json.dumps(task).encode()),
                ("window.jsonl", look.found.data),
            )
        ]
        if spec.reference is None and known.reference is not None:
            digest = known.reference.removeprefix("sha256:")
            size = self._blobs.size(digest)
            entries.append(FileEntry("reference.jsonl", 0o644, size, digest))
        manifest = Manifest.of(entries)
        self._blobs.put(manifest.digest, io.BytesIO(manifest.to_bytes()))
        return manifest

    async def _begin(self, look: Look, spec: JobSpec, manifest: Manifest) -> MonitorRunView:
        now, row = self._plant.now(), look.serving.row
        submission = Submission(
            name=spec.name,
            kind=spec.kind,
            spec=spec.to_json(),
            nodes=1,
            ranks=1,
            gpus=0.0,
            cpus=spec.total_cpus,
            priority=spec.priority,
            max_restarts=spec.max_restarts,
            tags=spec.tags,
            snapshot=manifest.digest,
        )

        def write(session: Session) -> tuple[Entered, MonitorRunView]:
            owner = look.who if not look.scheduled else Caller(row.user, row.uid)
            (entered,) = enter_jobs(session, [Entry(submission, owner, now)])
            run = look.row("RUNNING", now, job_id=entered.number)
            session.add(run)
            session.flush()
            if not look.scheduled:
                _audit(session, look, now)
            return entered, monitors.view(run, row, whole=False)

        entered, view = await self._plant.database.write(write)
        self._plant.entered(entered, spec)
        return view

    async def _record(
        self, look: Look, status: Status, reason: str, *, reference: str | None = None
    ) -> MonitorRunView:
        """A look that needs no job."""
        now, deployment = self._plant.now(), look.serving.row

        def write(session: Session) -> MonitorRunView:
            run = look.row("DONE", now, status=status, reason=reason, ended_at=now)
            session.add(run)
            row = monitors.monitor(session, run.deployment_id, run.version, look.serving.since)
            if reference is not None:
                row.reference, row.reference_rows, row.reference_at = (
                    reference,
                    look.found.seen,
                    now,
                )
                session.add(row)
            if look.scheduled or reference is not None:
                watch, _ = judged(monitors.watch_of(row), status, look.until)
                monitors.save_watch(session, row, watch)
            if not look.scheduled:
                _audit(session, look, now)
            session.flush()
            return monitors.view(run, deployment, whole=True)

        return await self._plant.database.write(write)

    # -- what a job found ---------------------------------------------------------------------------

    async def _finish(
        self, run: MonitorRunRow, deployment: DeploymentRow, job: JobRow | None
    ) -> None:
        now, report, reason = self._plant.now(), None, "its job is not in the registry"
        if job is not None and job.state == "SUCCEEDED":
            report, reason = await self._report(job.id or 0)
        elif job is not None:
            reason = f"{job_name(job.id or 0)} {job.state.lower()}: {job.reason}"

        def write(session: Session) -> list[EventView]:
            row = session.get(MonitorRunRow, run.id)
            held = session.get(JobRow, job.id) if job is not None else None
            assert row is not None
            if held is not None:
                held.snapshot = None  # the lines of the window are not kept
                session.add(held)
            row.state, row.ended_at = ("FAILED" if report is None else "DONE"), now
            row.status = "" if report is None else report["status"]
            row.reason, row.report = reason, report or {}
            session.add(row)
            notes = _course(session, row, deployment) if row.scheduled else []
            for note in notes:
                audit.append(
                    session,
                    at=now,
                    user=ourselves().user,
                    uid=ourselves().uid,
                    action=note.kind,
                    target=f"{deployment.name}@{deployment.target}",
                    data={"text": note.message, "window": row.id},
                )
            monitors.prune(session, row.deployment_id)
            return writing.add_events(session, None, notes, now)

        self._plant.hub.announce(await self._plant.database.write(write))

    async def _report(self, job: int) -> tuple[dict[str, Any] | None, str]:
        """What a job has written, and why there is nothing, or nothing to say."""
        digest = await self._plant.database.read(lambda session: monitors.report_of(session, job))
        try:
            if digest is None:
                raise ValueError("it wrote no report")
            data = await asyncio.to_thread(self._blobs.read, digest)
            report = json.loads(data) if len(data) <= LARGEST else None
            if not isinstance(report, dict) or report.get("status") not in _STATUSES:
                raise ValueError("its report is not one")
            return report, str(report.get("reason", ""))
        except (ValueError, QuarterdeckError) as error:
            return None, f"{job_name(job)}: {error}"

    # -- what people ask ----------------------------------------------------------------------------

    async def view(self, name: str, target: str | None) -> MonitorView:
        """Raises NotFound, Conflict when nothing serves there."""
        serving = await self._services.found(name, target)
        number, row = serving.row.id or 0, await self._row(serving)
        runs = await self._plant.database.read(lambda session: monitors.runs(session, number))
        spec = serving.spec.monitor
        shown = spec or MonitorSpec()
        since = None if row.reference_at is None else rfc3339(row.reference_at)
        return {
            "service": serving.row.name,
            "target": serving.row.target,
            "version": serving.version,
            "every": None if spec is None else spec.every,
            "alarms": shown.alarms,
            "level": shown.level,
            "least": shown.least,
            "limit": shown.limit,
            "reference": shown.reference or since,
            "reference_rows": row.reference_rows,
            "drifting": row.drifting,
            "windows": row.windows,
            "runs": [monitors.view(run, serving.row, whole=False) for run in runs],
        }


def own_python() -> str:
    """The controller's interpreter, if it has what the job needs. Raises InvalidInput."""
    missing = [name for name in ("numpy", "scipy") if find_spec(name) is None]
    if missing:
        raise InvalidInput(
            f"a monitor's job needs {' and '.join(missing)}, which the controller's interpreter does "
            "not have",
            "`pip install 'quarterdeck[monitor]'` on every node, or `monitor: {python: ...}`.",
        )
    return sys.executable


def _audit(session: Session, look: Look, now: float) -> None:
    audit.append(
        session,
        at=now,
        user=look.who.user,
        uid=look.who.uid,
        action="monitor.look",
        target=look.serving.key,
        data={"since": rfc3339(look.since), "requests": look.found.seen},
    )


def _course(session: Session, run: MonitorRunRow, deployment: DeploymentRow) -> list[Note]:
    """What a scheduled window changes, and what is said of it."""
    name = f"{deployment.name}@{deployment.target}"
    row = monitors.monitor(session, run.deployment_id, run.version, run.since)
    if run.state == "FAILED":
        row.looked = max(row.looked, run.until)
        session.add(row)
        return [Note("monitor.failed", f"{name}: its monitor failed: {run.reason}", "warning")]
    watch, told = judged(monitors.watch_of(row), run.status, run.until)  # type: ignore[arg-type]
    monitors.save_watch(session, row, watch)
    if told == "settled":
        text = f"{name} no longer drifts: two windows in a row like its reference"
        return [Note("monitor.settled", text)]
    if told == "drift":
        text = f"{name} drifts (version {run.version}): {_words(run.report)}"
        if watch.windows > 1:
            text += f"; window {watch.windows} in a row"
        return [Note("monitor.drift", text, "warning")]
    return []


def _words(report: Mapping[str, Any]) -> str:
    drifted = [feature for feature in report["features"] if feature["drift"]]
    named = [f"{feature['name']} {_size(feature)}" for feature in drifted[:NAMED]]
    if len(drifted) > NAMED:
        named.append(f"{len(drifted) - NAMED} more")
    joint = report.get("joint")
    if joint and joint["drift"]:
        named.append(f"a classifier tells windows apart in {joint['accuracy']:.0%} of rows")
    return ", ".join(named)


def _size(feature: Mapping[str, Any]) -> str:
    before, after = feature["missing"]
    fresh = sum(item["share"] for item in feature["new"])
    if abs(after - before) > 0.02 and abs(after - before) > (feature["size"] or 0.0):
        return f"missing {before:.0%} -> {after:.0%}"
    if fresh > 0.02:
        return f"{fresh:.0%} in new categories"
    size = feature["size"] or 0.0
    return f"by {size:.2f} SD" if feature["kind"] == "number" else f"JS {size:.2f}"
