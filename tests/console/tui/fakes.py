"""A plausible cluster for tests and demonstrations of the console: no network, no clock of its own.

Everything is made from fixed numbers, so a screen made from it is the same every time. Run this file
to look at it: `python -m tests.console.tui.fakes [jobs|j412] [--ascii] [--read-only]`.
"""

from __future__ import annotations

import math
import queue
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from console.tui.core.base.world import Resume
from console.tui.core.draw.format import moment
from jobs.base.errors import Conflict, NotFound, QuarterdeckError, Unreachable
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
    JobView,
    LogLine,
    MaintenanceView,
    NodeView,
    SeriesPoint,
    StacksView,
)
from tests.console.tui import (
    fake_data,
    fake_files,
    fake_flows,
    fake_models,
    fake_monitors,
    fake_sweeps,
)
from tests.console.tui.fake_views import NOW, at, detail, events, history, jobs, nodes

BOOT = "boot-1"
_END = object()


class FakeClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.at = 0.0

    def wall(self) -> float:
        return NOW + self.at

    def mono(self) -> float:
        return 1000.0 + self.at

    def advance(self, seconds: float) -> None:
        self.at += seconds


class FakeStream:
    """A stream that tests feed; `close` ends it from any thread, as the client's does."""

    def __init__(self) -> None:
        self._items: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._waits = False
        self._closed = False

    @property
    def quiet(self) -> bool:
        """Whether all that was pushed has been taken and dealt with."""
        return self._closed or (self._waits and self._items.empty())

    def __iter__(self) -> FakeStream:
        return self

    def __next__(self) -> Any:
        self._waits = True
        item = self._items.get()
        self._waits = False
        if item is _END:
            raise StopIteration
        if isinstance(item, BaseException):
            raise item
        return item

    def push(self, *items: Any) -> None:
        for item in items:
            self._items.put(item)

    def fail(self, error: QuarterdeckError) -> None:
        self._items.put(error)

    def close(self) -> None:
        self._closed = True
        self._items.put(_END)


class FakeSource:
    """Keeps to the contract of `console.tui.source.Source`, with all it holds open to tests."""

    def __init__(self, *, sim: bool = False, empty: bool = False) -> None:
        self.rev = 100
        self.boot = BOOT
        self.down: QuarterdeckError | None = None
        self.tables: dict[str, dict[str, Any]] = {
            "jobs": {} if empty else {view["id"]: view for view in jobs()},
            "nodes": {} if empty else {view["name"]: view for view in nodes(sim)},
            "events": {} if empty else {str(view["id"]): view for view in events()},
        }
        if not empty:
            self.tables["job:j412"] = {"j412": detail(self.tables["jobs"]["j412"])}
            for view in self.tables["jobs"].values():
                if view["id"] != "j412":
                    ranks = min(4, view["ranks"])
                    full = detail(view, ranks)
                    if view["state"] == "SUCCEEDED":
                        full["attempts"][0]["first_failure"] = None
                    self.tables[f"job:{view['id']}"] = {view["id"]: full}
            self.tables |= fake_sweeps.tables()
            runs = {view["id"]: view for view in fake_flows.runs()}
            steps = {f"{one['step']}/{one['number']}": one for one in fake_flows.tasks()}
            self.tables |= {"pipelines": runs, "pipeline:p9": {"p9": runs["p9"], **steps}}
        self.versions: list[ModelDetail] = [] if empty else fake_models.versions()
        self.monitors: dict[str, MonitorView] = {} if empty else fake_monitors.monitors()
        self.datasets: list[DataVersionDetail] = [] if empty else fake_data.versions()
        self.more_runs: str | None = None  # where the next page of runs would begin
        self.services: list[DeploymentView] = [] if empty else fake_models.deployments()
        self.timetable: list[ScheduleView] = [] if empty else fake_flows.schedules()
        self.wrong: list[AlertView] = [] if empty else fake_flows.alerts()
        self.maintained: MaintenanceView | None = None
        self.logs: dict[int, bytes] = {
            r: "".join(
                f"step {i} loss {3 - i / 900:.3f} tok/s {31_000 + r}\n" for i in range(800)
            ).encode()
            for r in range(16)
        }
        self.logs[0] += "\x1b[32mok\x1b[0m\tdone \x1b]0;own title\x07 ünï 长上下文\n".encode()
        self.whole: list[LogLine] = []  # all lines of all ranks, by time
        self.older: list[JobView] = []  # newest first, beyond those that are watched
        self.past: list[EventView] = []  # oldest first, before those that are watched
        self.written: list[FileView] = [] if empty else fake_files.written()
        self.brought: list[FileView] = fake_files.brought()
        self.contents: dict[str, bytes] = dict(fake_files.CONTENTS)
        self.pulled: list[tuple[Path, list[str]]] = []
        self.hold: threading.Event | None = None  # keeps a copy waiting half way
        self.acts: list[tuple[str, str]] = []
        self.bodies: list[dict[str, Any]] = []  # what was sent with some of them
        self.refuse: QuarterdeckError | None = None
        self.watches: list[tuple[tuple[str, ...], Resume | None]] = []
        self.calls: list[str] = []
        self._streams: list[tuple[tuple[str, ...], FakeStream]] = []
        self._lock = threading.Lock()

    # What tests do to it.

    def put(self, topic: str, key: str, value: Any) -> None:
        """Change a value, and tell who watches."""
        self.rev += 1
        self.tables.setdefault(topic, {})[key] = value
        self._tell(
            topic, {"rev": self.rev, "op": "put", "topic": topic, "key": key, "value": value}
        )

    def delete(self, topic: str, key: str) -> None:
        self.rev += 1
        del self.tables[topic][key]
        self._tell(topic, {"rev": self.rev, "op": "del", "topic": topic, "key": key})

    def ping(self) -> None:
        for topics, stream in self.open_streams():
            if topics[0].startswith("logs:"):
                continue  # a log stream knows no pings
            stream.push({"rev": self.rev, "op": "ping", "topic": "", "boot": self.boot})

    def cut(self, *, down: bool = True) -> None:
        """Cut every stream; with `down`, new ones are refused until `restore`."""
        error = Unreachable("the control plane is not running", "Start it with `qd up`.")
        self.down = error if down else None
        for _, stream in self.open_streams():
            stream.fail(Unreachable("the connection to the control plane was cut"))
        with self._lock:
            self._streams.clear()

    def restore(self) -> None:
        self.down = None

    def open_streams(self) -> list[tuple[tuple[str, ...], FakeStream]]:
        with self._lock:
            return list(self._streams)

    @property
    def quiet(self) -> bool:
        """Whether every watcher has taken what it was told."""
        return all(stream.quiet for _, stream in self.open_streams())

    def _tell(self, topic: str, delta: dict[str, Any]) -> None:
        for topics, stream in self.open_streams():
            if topic in topics:
                stream.push(delta)

    def _check(self, call: str) -> None:
        self.calls.append(call)
        if self.down is not None:
            raise self.down

    # The contract.

    def watch(self, topics: Iterable[str], resume: Resume | None) -> FakeStream:
        wanted = tuple(topics)
        self.watches.append((wanted, resume))
        self._check("watch")
        for topic in wanted:
            if topic.startswith("job:") and topic not in self.tables:
                raise NotFound(f"there is no job {topic[4:]}")
            if topic.startswith("sweep:") and topic not in self.tables:
                raise NotFound(f"there is no sweep {topic[6:]}")
            if topic.startswith("pipeline:") and topic not in self.tables:
                raise NotFound(f"there is no pipeline {topic[9:]}")
        stream = FakeStream()
        if resume is None or resume.boot != self.boot:
            for topic in wanted:
                stream.push({"rev": self.rev, "op": "reset", "topic": topic})
                for key, value in self.tables.get(topic, {}).items():
                    stream.push(
                        {"rev": self.rev, "op": "put", "topic": topic, "key": key, "value": value}
                    )
                stream.push({"rev": self.rev, "op": "ready", "topic": topic, "boot": self.boot})
        stream.push({"rev": self.rev, "op": "ready", "topic": "", "boot": self.boot})
        with self._lock:
            self._streams.append((wanted, stream))
        return stream

    def follow_logs(
        self, job: str, attempt: int, tail: int, *, rank: int | None = None, grep: str | None = None
    ) -> FakeStream:
        self._check(f"logs {job}")
        stream = FakeStream()
        offset = 0
        for i in range(12):
            said = f"step {9000 + i} loss 2.{10 - i // 2:02d}"
            if grep is not None and not re.search(grep, said):
                continue
            for r in (0, 1, 9):
                if rank not in (None, r):
                    continue
                stream.push({"rank": r, "offset": offset, "at": at(12 - i), "line": said})
            offset += len(said) + 1
        with self._lock:
            self._streams.append(((f"logs:{job}",), stream))
        return stream

    def read_log(
        self, job: str, attempt: int, rank: int, offset: int, limit: int
    ) -> tuple[bytes, int]:
        self._check(f"raw {job} {rank}")
        log = self.logs.get(rank, b"")
        return log[offset : offset + limit], len(log)

    def jobs_page(self, before: str, limit: int) -> JobPage:
        self._check(f"page {before}")
        older = [view for view in self.older if int(view["id"][1:]) < int(before[1:])][:limit]
        last = older[-1]["id"] if older and older[-1] is not self.older[-1] else None
        return {"jobs": older, "next": last, "total": len(self.older)}

    def whole_log(
        self,
        job: str,
        attempt: int,
        rank: int | None,
        *,
        since: float | None = None,
        grep: str | None = None,
    ) -> FakeStream:
        """`whole` where a test has set it, else the last lines of each rank."""
        self._check(f"whole {job}")
        stream = FakeStream()
        lines = self.whole or [
            {"attempt": 1, "rank": one, "offset": 0, "at": at(1), "line": said}
            for one in sorted(self.logs)
            for said in self.logs[one].decode().splitlines()[-3:]
        ]
        for one in lines:
            if since is not None and (moment(one["at"]) or 0.0) < since:
                continue
            if grep is None or re.search(grep, one["line"]):
                stream.push(one)
        stream.push(_END)
        return stream

    def find_line(
        self, job: str, attempt: int, rank: int, *, offset: int = 0, since: float | None = None
    ) -> LogLine | None:
        """Its logs are written a line a second, the first one at `NOW - 800`."""
        self._check(f"line {job} {rank}")
        log = self.logs.get(rank, b"")
        if since is not None:
            lines = log.splitlines(keepends=True)
            number = max(0, math.ceil(since - (NOW - 800)))
            if number >= len(lines):
                return None
            offset = sum(map(len, lines[:number]))
        number = log[:offset].count(b"\n")
        said = log[offset:].split(b"\n")[0].decode()
        when = at(800 - number)
        return {"rank": rank, "offset": offset, "at": when, "line": said, "attempt": attempt}

    def nodes(self) -> list[NodeView]:
        self._check("nodes")
        return list(self.tables["nodes"].values())

    def node(self, name: str) -> NodeView:
        self._check(f"node view {name}")
        found: NodeView = self.tables["nodes"][name]
        return found

    def series(
        self, job: str, points: int, since: float | None = None, until: float | None = None
    ) -> dict[str, list[SeriesPoint]]:
        self._check(f"series {job}")
        steps = range(0, 9000, 45)
        if (
            since is not None and until is not None
        ):  # closer: every step, where that is not too many
            first, last = (max(0, int(side - NOW + 9000)) for side in (since, until))
            steps = range(first, min(9000, last + 1), max(1, (last - first) // points))
        return {
            "loss": [
                {
                    "step": s,
                    "at": NOW - 9000 + s,
                    "value": 11 * math.exp(-s / 1500) + 2 + (3 if s == 4500 else 0),
                }
                for s in steps
            ],
            "lr": [
                {"step": s, "at": NOW - 9000 + s, "value": 3e-4 * (1 - s / 9000)} for s in steps
            ],
            "val_acc": [
                {"step": s, "at": NOW - 9000 + s, "value": 1 - math.exp(-s / 3000)} for s in steps
            ],
        }

    def job_gpus(self, job: str, seconds: int, points: int) -> dict[str, list[HistoryPoint]]:
        self._check(f"gpus {job}")
        attempt = self.tables[f"job:{job}"][job]["attempts"][-1]
        uuids = [uuid for one in attempt["ranks"] for uuid in one["gpus"]]
        return {
            uuid: history(seconds, points, 31.0 if uuid.endswith("03-3") else 90.0)
            for uuid in uuids
        }

    def node_history(self, node: str, seconds: int, points: int) -> list[HistoryPoint]:
        self._check(f"node {node}")
        return history(seconds, points)

    def cluster_history(self, seconds: int, points: int) -> list[HistoryPoint]:
        self._check("history")
        return [] if not self.tables["nodes"] else history(seconds, points, 80.0)

    def explain(self, job: str) -> ExplainView:
        self._check(f"explain {job}")
        return {
            "id": job,
            "state": "QUEUED",
            "summary": f"{job} waits for 8 nodes with 8 free GPUs each; 2 have them.",
            "reasons": ["n25 and n26 are drained", "j421 holds 10 nodes until 16:40"],
            "unblock": [{"change": "run on 2 nodes", "command": "qd submit --nodes 2"}],
            "first_failure": None,
            "story": ["12:03:11 submitted by mira"],
        }

    def stacks(self, job: str) -> StacksView:
        self._check(f"stacks {job}")
        return {
            "id": job,
            "groups": [
                {
                    "ranks": [0, 1, 2, 4, 5, 6, 7],
                    "thread": "MainThread",
                    "frames": ["all_reduce (distributed_c10d.py:2806)", "train (train.py:88)"],
                },
                {
                    "ranks": [3],
                    "thread": "MainThread",
                    "frames": ["read (dataset.py:41)", "train (train.py:80)"],
                },
            ],
            "failed": {"9": "the process has ended"},
        }

    def sweep_curves(
        self, sweep: str, points: int, limit: int, trials: Sequence[int] = ()
    ) -> list[CurveView]:
        self._check(f"curves {sweep}")
        known = [t for key, t in self.tables[f"sweep:{sweep}"].items() if key != sweep]
        return fake_sweeps.curves([t for t in known if not trials or t["number"] in trials])

    def importance(self, sweep: str) -> dict[str, float]:
        self._check(f"importance {sweep}")
        return dict(fake_sweeps.IMPORTANCE)

    def models(self) -> list[ModelView]:
        self._check("models")
        return list(self.versions)

    def model(self, ref: str) -> ModelDetail:
        self._check(f"model {ref}")
        return next(one for one in self.versions if one["id"] == ref)

    def deployments(self) -> list[DeploymentView]:
        self._check("deployments")
        return list(self.services)

    def monitor(self, service: str, target: str) -> MonitorView:
        self._check(f"monitor {service} {target}")
        if service not in self.monitors:
            raise Conflict(f"nothing serves {service}")
        return self.monitors[service]

    def monitor_run(self, number: int) -> MonitorRunView:
        self._check(f"monitor run {number}")
        runs = [run for monitor in self.monitors.values() for run in monitor["runs"]]
        (found,) = [run for run in runs if run["id"] == number]
        found["report"] = fake_monitors.report() if found["drifted"] else {}
        return found

    def service_keys(self, service: str, target: str) -> list[KeyView]:
        self._check(f"keys {service}")
        return fake_monitors.keys(service)

    def data(self) -> list[DataVersionView]:
        self._check("data")
        newest: dict[str, DataVersionView] = {}
        for one in self.datasets:
            count = sum(other["name"] == one["name"] for other in self.datasets)
            view: Any = {name: held for name, held in one.items() if name != "profile"}
            newest.setdefault(one["name"], view | {"versions": count})
        return [newest[name] for name in sorted(newest)]

    def data_versions(self, name: str) -> list[DataVersionView]:
        self._check(f"versions {name}")
        return [one for one in self.datasets if one["name"] == name]

    def data_version(self, ref: str) -> DataVersionDetail:
        self._check(f"data {ref}")
        found = [one for one in self.datasets if one["id"] == ref]
        if not found:
            raise NotFound(f"there is no data set {ref}")
        return found[0]

    def data_files(self, ref: str) -> list[DataFile]:
        self._check(f"data files {ref}")
        return fake_data.files(ref)

    def runs(self, limit: int) -> RunPage:
        self._check("runs")
        found = fake_data.runs()
        return {"runs": found, "next": self.more_runs, "total": len(found)}

    def runs_of(self, jobs: Sequence[str], points: int) -> list[RunView]:
        self._check(f"runs of {len(jobs)} {points}")
        return [
            fake_data.run_of(self.tables["jobs"][job], points)
            for job in jobs
            if job in self.tables["jobs"]
        ]

    def events(self, before: int, limit: int, text: str, level: str) -> list[EventView]:
        self._check(f"events {before} {text} {level}")
        levels = ("all", "warning", "error")
        least = levels.index(level)
        found = [
            one
            for one in self.past
            if one["id"] < before
            and text in one["message"].lower()
            and (not least or levels.index(one["severity"]) >= least)
        ]
        return found[-limit:]

    def files(self, job: str, *, everything: bool) -> FilesView:
        self._check(f"files {job}{' everything' if everything else ''}")
        if self.refuse is not None:
            raise self.refuse
        found = [*self.written, *(self.brought if everything else ())]
        return {"id": f"{job}.1", "attempt": 1, "files": found, "until": None, "missing": []}

    def file_head(self, job: str, file: FileView, limit: int) -> bytes:
        self._check(f"head {job} {file['path']}")
        if file["path"] not in self.contents:
            raise NotFound(f"{file['path']} is gone", "Files on nodes are kept for 7 days.")
        return self.contents[file["path"]][:limit]

    def pull(
        self,
        job: str,
        files: Sequence[FileView],
        target: Path,
        moved: Callable[[int, str], None],
        tell: Callable[[str], None],
    ) -> None:
        self._check(f"pull {job}")
        self.pulled.append((target, [file["path"] for file in files]))
        if self.hold is not None:
            moved(sum(file["size"] for file in files) // 2, files[0]["path"])
            self.hold.wait(5)
        if self.refuse is not None:
            raise self.refuse

    def job(self, job: str) -> JobDetail:
        self._check(f"job {job}")
        found: JobDetail = self.tables[f"job:{job}"][job]
        return found

    def schedules(self) -> list[ScheduleView]:
        self._check("schedules")
        return list(self.timetable)

    def alerts(self, *, over: bool = True) -> list[AlertView]:
        self._check("alerts" if over else "open alerts")
        return [one for one in self.wrong if over or one["state"] != "RESOLVED"]

    def maintenance(self) -> MaintenanceView | None:
        return self.maintained

    def act(self, verb: str, target: str, body: Mapping[str, Any] | None = None) -> None:
        self._check(f"act {verb}")
        if self.refuse is not None:
            raise self.refuse
        self.acts.append((verb, target))
        if body is not None:
            self.bodies.append(dict(body))


def main() -> None:
    """Look at it in a terminal: pings keep it live, and time goes on from `NOW`."""
    import sys
    import time

    from console.tui.app import QuarterdeckApp

    source = FakeSource(sim="--sim" in sys.argv)

    clock = FakeClock()

    def live() -> None:
        while True:
            time.sleep(1)
            clock.advance(1)
            source.ping()

    threading.Thread(target=live, daemon=True).start()
    start = next((arg for arg in sys.argv[1:] if not arg.startswith("-")), None)
    QuarterdeckApp(
        source,
        clock=clock,
        start=start,
        read_only="--read-only" in sys.argv,
        ascii_only="--ascii" in sys.argv,
    ).run()


if __name__ == "__main__":
    main()
