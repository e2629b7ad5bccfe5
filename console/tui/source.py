"""Where the console's data comes from: the API behind a small, typed, blocking interface.

The screens never call it. Feeds and fetches do, in threads of their own; tests give the app a fake.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from console.client import Client, segment
from console.tui.core.base.world import Resume
from jobs.base.times import rfc3339
from jobs.wire.alertviews import AlertView
from jobs.wire.dataviews import DataFile, DataVersionDetail, DataVersionView
from jobs.wire.flowviews import ScheduleView
from jobs.wire.modelviews import ModelDetail, ModelView
from jobs.wire.monitorviews import MonitorRunView, MonitorView
from jobs.wire.runviews import RunPage, RunView
from jobs.wire.serviceviews import DeploymentView, KeyView
from jobs.wire.sweepviews import CurveView
from jobs.wire.views import (
    EventView,
    ExplainView,
    FilesView,
    FileView,
    HistoryPoint,
    JobDetail,
    JobPage,
    LogLine,
    MaintenanceView,
    NodeView,
    SeriesPoint,
    StacksView,
)

SILENCE = 8.0
"""Seconds without a line after which a watch counts as cut; the controller pings each second."""


FILES_TIMEOUT = 90.0
"""Seconds for a list of files: each node of the gang is asked, and may have fifty thousand of them."""


class Closable(Iterator[Any], Protocol):
    def close(self) -> None:
        """End the iteration; may be called from another thread."""
        ...


class Source(Protocol):
    """Everything may raise an error of `jobs.base.errors`, and may block for as long as a slow link does."""

    def watch(self, topics: Iterable[str], resume: Resume | None) -> Closable:
        """Deltas of the topics (`jobs.wire.views.Delta`), with their full state first unless resumed."""
        ...

    def follow_logs(
        self, job: str, attempt: int, tail: int, *, rank: int | None = None, grep: str | None = None
    ) -> Closable:
        """The newest `tail` lines of all ranks or one and then what comes (`jobs.wire.views.LogLine`); with
        `grep`, a regular expression, only lines that match it, looked for in the whole log."""
        ...

    def read_log(
        self, job: str, attempt: int, rank: int, offset: int, limit: int
    ) -> tuple[bytes, int]:
        """Bytes of a rank's log from an offset, and the log's size now."""
        ...

    def series(
        self, job: str, points: int, since: float | None = None, until: float | None = None
    ) -> dict[str, list[SeriesPoint]]: ...
    def job_gpus(self, job: str, seconds: int, points: int) -> dict[str, list[HistoryPoint]]: ...
    def node_history(self, node: str, seconds: int, points: int) -> list[HistoryPoint]: ...
    def cluster_history(self, seconds: int, points: int) -> list[HistoryPoint]: ...
    def explain(self, job: str) -> ExplainView: ...
    def stacks(self, job: str) -> StacksView: ...
    def jobs_page(self, before: str, limit: int) -> JobPage:
        """Jobs older than `before`, newest first."""
        ...

    def whole_log(
        self,
        job: str,
        attempt: int,
        rank: int | None,
        *,
        since: float | None = None,
        grep: str | None = None,
    ) -> Closable:
        """All lines of a rank, or of all ranks merged by time (`jobs.wire.views.LogLine`); only those from a
        moment on, or that match a regular expression."""
        ...

    def find_line(
        self, job: str, attempt: int, rank: int, *, offset: int = 0, since: float | None = None
    ) -> LogLine | None:
        """The first line of a rank from a byte offset, or from a moment on; None when there is none."""
        ...

    def node(self, name: str) -> NodeView: ...
    def nodes(self) -> list[NodeView]: ...
    def sweep_curves(
        self, sweep: str, points: int, limit: int, trials: Sequence[int] = ()
    ) -> list[CurveView]:
        """Learning curves of a sweep's newest trials, or of some."""
        ...

    def importance(self, sweep: str) -> dict[str, float]:
        """Parameter -> its share of what decides the first objective; empty before it is known."""
        ...

    def models(self) -> list[ModelView]:
        """Versions by name, the newest first: `MODELS_READ` at most."""
        ...

    def model(self, ref: str) -> ModelDetail: ...
    def deployments(self) -> list[DeploymentView]: ...
    def monitor(self, service: str, target: str) -> MonitorView: ...
    def monitor_run(self, number: int) -> MonitorRunView:
        """A window that a monitor looked at, with its report."""
        ...

    def service_keys(self, service: str, target: str) -> list[KeyView]: ...
    def data(self) -> list[DataVersionView]:
        """The newest version of each data set, by name."""
        ...

    def data_versions(self, name: str) -> list[DataVersionView]:
        """All versions of a data set, newest first."""
        ...

    def data_version(self, ref: str) -> DataVersionDetail: ...
    def data_files(self, ref: str) -> list[DataFile]: ...
    def runs(self, limit: int) -> RunPage:
        """The newest runs."""
        ...

    def runs_of(self, jobs: Sequence[str], points: int) -> list[RunView]:
        """The runs of some jobs, each with its objective as a line of about so many points; a job that is
        not known is left out."""
        ...

    def events(self, before: int, limit: int, text: str, level: str) -> list[EventView]:
        """The newest events older than one, oldest first: with a text in them, from a severity on."""
        ...

    def job(self, job: str) -> JobDetail: ...

    def files(self, job: str, *, everything: bool) -> FilesView:
        """What the newest attempt of a job wrote; with `everything`, also what it came with."""
        ...

    def file_head(self, job: str, file: FileView, limit: int) -> bytes:
        """The first bytes of a file."""
        ...

    def pull(
        self,
        job: str,
        files: Sequence[FileView],
        target: Path,
        moved: Callable[[int, str], None],
        tell: Callable[[str], None],
    ) -> None:
        """Copy files below a folder of this machine, as `qd pull` does. `moved` is passed the bytes that
        are here and the file that is being copied, `tell` what a person should know."""
        ...

    def schedules(self) -> list[ScheduleView]: ...
    def alerts(self, *, over: bool = True) -> list[AlertView]:
        """Alerts that are not over, and (if `over`) the newest that are."""
        ...

    def maintenance(self) -> MaintenanceView | None:
        """The head's maintenance that is in force."""
        ...

    def act(self, verb: str, target: str, body: Mapping[str, Any] | None = None) -> None:
        """Do what a `core.commands.Command` says. A target of several names has them between slashes."""
        ...


_ACTS = {
    "cancel": "/v1/jobs/{}/cancel",
    "retry": "/v1/jobs/{}/retry",
    "drain": "/v1/nodes/{}/drain",
    "undrain": "/v1/nodes/{}/undrain",
    "pause": "/v1/sweeps/{}/pause",
    "resume": "/v1/sweeps/{}/resume",
    "stop": "/v1/sweeps/{}/stop",
    "extend": "/v1/sweeps/{}/extend",
    "prune": "/v1/sweeps/{}/trials/{}/prune",
    "pin": "/v1/sweeps/{}/trials/{}/pin",
    "unpin": "/v1/sweeps/{}/trials/{}/unpin",
    "rerun": "/v1/sweeps/{}/trials/{}/rerun",
    "approve": "/v1/models/{}/approve",
    "reject": "/v1/models/{}/reject",
    "promote": "/v1/deployments/{}/promote?target={}",
    "pause rollout": "/v1/deployments/{}/pause?target={}",
    "resume rollout": "/v1/deployments/{}/resume?target={}",
    "abort rollout": "/v1/deployments/{}/abort?target={}",
    "roll back": "/v1/deployments/{}/rollback?target={}",
    "cancel run": "/v1/pipelines/{}/cancel",
    "retry run": "/v1/pipelines/{}/retry",
    "pause schedule": "/v1/schedules/{}/pause",
    "resume schedule": "/v1/schedules/{}/resume",
    "run schedule": "/v1/schedules/{}/run",
    "acknowledge": "/v1/alerts/ack",
    "silence": "/v1/alerts/silence",
}

ONCE = frozenset({"extend", "rerun", "roll back", "retry run", "run schedule", "silence"})
"""What would be done twice if it were sent again after a cut: a point is added, a trial or a
pipeline run again, a service taken back by another version."""

MODELS_READ = 1000
"""Versions that the control plane gives at once at most."""


class LiveSource:
    """The API of a running control plane."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def watch(self, topics: Iterable[str], resume: Resume | None) -> Closable:
        return self._client.stream(
            "/v1/watch",
            idle_timeout=SILENCE,
            topics=",".join(topics),
            since=resume.rev if resume else None,
            boot=resume.boot if resume else None,
        )

    def follow_logs(
        self, job: str, attempt: int, tail: int, *, rank: int | None = None, grep: str | None = None
    ) -> Closable:
        path = f"/v1/jobs/{segment(job)}/logs"
        return self._client.stream(path, attempt=attempt, tail=tail, rank=rank, grep=grep, follow=1)

    def read_log(
        self, job: str, attempt: int, rank: int, offset: int, limit: int
    ) -> tuple[bytes, int]:
        data, headers = self._client.raw(
            f"/v1/jobs/{segment(job)}/logs/{rank}/raw",
            attempt=attempt,
            offset=offset,
            limit=limit,
        )
        return data, int(headers.get("X-Size", offset + len(data)))

    def series(
        self, job: str, points: int, since: float | None = None, until: float | None = None
    ) -> dict[str, list[SeriesPoint]]:
        path = f"/v1/jobs/{segment(job)}/series"
        answer = self._client.get(path, points=points, since=since, until=until)
        return cast("dict[str, list[SeriesPoint]]", answer)

    def job_gpus(self, job: str, seconds: int, points: int) -> dict[str, list[HistoryPoint]]:
        path = f"/v1/jobs/{segment(job)}/gpus"
        answer = self._client.get(path, seconds=seconds, points=points)
        return cast("dict[str, list[HistoryPoint]]", answer)

    def node_history(self, node: str, seconds: int, points: int) -> list[HistoryPoint]:
        path = f"/v1/nodes/{segment(node)}/history"
        answer = self._client.get(path, metric="gpu_util", seconds=seconds, points=points)
        return cast("list[HistoryPoint]", answer)

    def cluster_history(self, seconds: int, points: int) -> list[HistoryPoint]:
        answer = self._client.get("/v1/history", metric="gpu_util", seconds=seconds, points=points)
        return cast("list[HistoryPoint]", answer)

    def explain(self, job: str) -> ExplainView:
        return cast("ExplainView", self._client.get(f"/v1/jobs/{segment(job)}/explain"))

    def stacks(self, job: str) -> StacksView:
        return cast("StacksView", self._client.get(f"/v1/jobs/{segment(job)}/stacks"))

    def jobs_page(self, before: str, limit: int) -> JobPage:
        return cast("JobPage", self._client.get("/v1/jobs", before=before, limit=limit))

    def whole_log(
        self,
        job: str,
        attempt: int,
        rank: int | None,
        *,
        since: float | None = None,
        grep: str | None = None,
    ) -> Closable:
        point = None if since is None else rfc3339(since)
        path = f"/v1/jobs/{segment(job)}/logs"
        return self._client.stream(path, attempt=attempt, rank=rank, since=point, grep=grep)

    def find_line(
        self, job: str, attempt: int, rank: int, *, offset: int = 0, since: float | None = None
    ) -> LogLine | None:
        point: dict[str, Any] = {"offset": offset} if since is None else {"since": rfc3339(since)}
        stream = self._client.stream(
            f"/v1/jobs/{segment(job)}/logs", attempt=attempt, rank=rank, **point
        )
        with stream:
            return cast("LogLine | None", next(stream, None))

    def nodes(self) -> list[NodeView]:
        return cast("list[NodeView]", self._client.get("/v1/nodes"))

    def node(self, name: str) -> NodeView:
        return cast("NodeView", self._client.get(f"/v1/nodes/{segment(name)}"))

    def sweep_curves(
        self, sweep: str, points: int, limit: int, trials: Sequence[int] = ()
    ) -> list[CurveView]:
        path = f"/v1/sweeps/{segment(sweep)}/curves"
        answer = self._client.get(path, points=points, limit=limit, trial=list(trials) or None)
        return cast("list[CurveView]", answer)

    def importance(self, sweep: str) -> dict[str, float]:
        answer = self._client.get(f"/v1/sweeps/{segment(sweep)}/importance")
        return cast("dict[str, float]", answer)

    def models(self) -> list[ModelView]:
        return cast("list[ModelView]", self._client.get("/v1/models", limit=MODELS_READ))

    def model(self, ref: str) -> ModelDetail:
        return cast("ModelDetail", self._client.get(f"/v1/models/{segment(ref)}"))

    def deployments(self) -> list[DeploymentView]:
        return cast("list[DeploymentView]", self._client.get("/v1/deployments"))

    def monitor(self, service: str, target: str) -> MonitorView:
        path = f"/v1/deployments/{segment(service)}/monitor"
        return cast("MonitorView", self._client.get(path, target=target))

    def monitor_run(self, number: int) -> MonitorRunView:
        return cast("MonitorRunView", self._client.get(f"/v1/monitor-runs/{number}"))

    def service_keys(self, service: str, target: str) -> list[KeyView]:
        path = f"/v1/deployments/{segment(service)}/keys"
        return cast("list[KeyView]", self._client.get(path, target=target))

    def data(self) -> list[DataVersionView]:
        return cast("list[DataVersionView]", self._client.get("/v1/data"))

    def data_versions(self, name: str) -> list[DataVersionView]:
        answer = self._client.get(f"/v1/data/{segment(name)}/versions")
        return cast("list[DataVersionView]", answer)

    def data_version(self, ref: str) -> DataVersionDetail:
        return cast("DataVersionDetail", self._client.get(f"/v1/data/{segment(ref)}"))

    def data_files(self, ref: str) -> list[DataFile]:
        return cast("list[DataFile]", self._client.get(f"/v1/data/{segment(ref)}/files"))

    def runs(self, limit: int) -> RunPage:
        return cast("RunPage", self._client.get("/v1/runs", limit=limit))

    def runs_of(self, jobs: Sequence[str], points: int) -> list[RunView]:
        wanted = " or ".join(f"id={job}" for job in jobs)
        answer = self._client.get("/v1/runs", filter=wanted, limit=len(jobs), points=points)
        return cast("RunPage", answer)["runs"]

    def events(self, before: int, limit: int, text: str, level: str) -> list[EventView]:
        with self._client.stream(
            "/v1/events", before=before, limit=limit, text=text or None, level=level
        ) as stream:
            return cast("list[EventView]", list(stream))

    def job(self, job: str) -> JobDetail:
        return cast("JobDetail", self._client.get(f"/v1/jobs/{segment(job)}"))

    def files(self, job: str, *, everything: bool) -> FilesView:
        slow = self._client.with_timeout(FILES_TIMEOUT)
        answer = slow.get(f"/v1/jobs/{segment(job)}/files", everything=everything or None)
        return cast("FilesView", answer)

    def file_head(self, job: str, file: FileView, limit: int) -> bytes:
        limit = min(limit, file["size"])
        if not limit:
            return b""
        query: dict[str, Any] = {"offset": 0, "limit": limit}
        if file["sha256"] is not None:
            path = f"/v1/blobs/{file['sha256']}"
        else:
            path = f"/v1/jobs/{segment(job)}/files/{file['place']}/data"
            query |= {"node": file["node"], "file": file["path"]}
        data, _ = self._client.with_timeout(FILES_TIMEOUT).raw(path, **query)
        return data

    def pull(
        self,
        job: str,
        files: Sequence[FileView],
        target: Path,
        moved: Callable[[int, str], None],
        tell: Callable[[str], None],
    ) -> None:
        from console.cli.pulling import Puller

        path = f"/v1/jobs/{segment(job)}"
        Puller(self._client, path, target, quiet=True, moved=moved, tell=tell).pull(list(files))

    def schedules(self) -> list[ScheduleView]:
        return cast("list[ScheduleView]", self._client.get("/v1/schedules"))

    def alerts(self, *, over: bool = True) -> list[AlertView]:
        return cast("list[AlertView]", self._client.get("/v1/alerts", over=int(over)))

    def maintenance(self) -> MaintenanceView | None:
        return cast("MaintenanceView | None", self._client.get("/v1/maintenance"))

    def act(self, verb: str, target: str, body: Mapping[str, Any] | None = None) -> None:
        path = _ACTS[verb].format(*map(segment, target.split("/")))
        send = self._client.post if verb in ONCE else self._client.act
        send(path, body)
