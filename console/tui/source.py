"""Where the console's data comes from: the API behind a small, typed, blocking interface.

The screens never call it. Feeds and fetches do, in threads of their own; tests give the app a fake.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, cast

from console.client import Client, segment
from console.tui.core.world import Resume
from jobs.sweepviews import CurveView
from jobs.times import rfc3339
from jobs.views import (
    ExplainView,
    HistoryPoint,
    JobPage,
    LogLine,
    NodeView,
    SeriesPoint,
    StacksView,
)

SILENCE = 8.0
"""Seconds without a line after which a watch counts as cut; the controller pings each second."""


class Closable(Iterator[Any], Protocol):
    def close(self) -> None:
        """End the iteration; may be called from another thread."""
        ...


class Source(Protocol):
    """Everything may raise an error of `jobs.errors`, and may block for as long as a slow link does."""

    def watch(self, topics: Iterable[str], resume: Resume | None) -> Closable:
        """Deltas of the topics (`jobs.views.Delta`), with their full state first unless resumed."""
        ...

    def follow_logs(
        self, job: str, attempt: int, tail: int, *, rank: int | None = None, grep: str | None = None
    ) -> Closable:
        """The newest `tail` lines of all ranks or one and then what comes (`jobs.views.LogLine`); with
        `grep`, a regular expression, only lines that match it, looked for in the whole log."""
        ...

    def read_log(
        self, job: str, attempt: int, rank: int, offset: int, limit: int
    ) -> tuple[bytes, int]:
        """Bytes of a rank's log from an offset, and the log's size now."""
        ...

    def series(self, job: str, points: int) -> dict[str, list[SeriesPoint]]: ...
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
        """All lines of a rank, or of all ranks merged by time (`jobs.views.LogLine`); only those from a
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
}

ONCE = frozenset({"extend", "rerun"})
"""What would be done twice if it were sent again after a cut: a point is added, a trial run again."""


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

    def series(self, job: str, points: int) -> dict[str, list[SeriesPoint]]:
        path = f"/v1/jobs/{segment(job)}/series"
        return cast("dict[str, list[SeriesPoint]]", self._client.get(path, points=points))

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

    def act(self, verb: str, target: str, body: Mapping[str, Any] | None = None) -> None:
        path = _ACTS[verb].format(*map(segment, target.split("/")))
        send = self._client.post if verb in ONCE else self._client.act
        send(path, body)
