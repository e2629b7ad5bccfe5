"""A plausible cluster for tests and demonstrations of the console: no network, no clock of its own.

Everything is made from fixed numbers, so a screen made from it is the same every time. Run this file
to look at it: `python tests/console/tui/fakes.py [jobs|j412] [--ascii] [--read-only]`.
"""

from __future__ import annotations

import math
import queue
import re
import threading
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from console.tui.core.world import Resume
from jobs.errors import NotFound, QuarterdeckError, Unreachable
from jobs.views import (
    AttemptView,
    EventView,
    ExplainView,
    GpuView,
    HistoryPoint,
    JobDetail,
    JobPage,
    JobView,
    LogLine,
    NodeView,
    RankView,
    SeriesPoint,
    StacksView,
)

NOW = 1_790_000_000.0  # a fixed moment in 2026
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


def at(seconds_ago: float) -> str:
    """RFC 3339, that long before `NOW`."""
    return datetime.fromtimestamp(NOW - seconds_ago, UTC).isoformat().replace("+00:00", "Z")


def gpu(node: int, index: int, *, job: str | None, rank: int | None, sim: bool) -> GpuView:
    base = 92 + (node * 7 + index * 3) % 8 if job else 0
    util = 31.0 if (node, index) == (3, 3) else float(base)
    return GpuView(
        index=index,
        uuid=f"{'SIM' if sim else 'GPU'}-{node:02d}-{index}",
        model="NVIDIA H100 80GB HBM3",
        simulated=sim,
        util=util,
        mem_used=(70 + index) << 30 if job else 1 << 29,
        mem_total=80 << 30,
        power=690.0 - index * 3 if job else 70.0,
        power_limit=700.0,
        temp=60.0 + index if job else 31.0,
        sm_clock=1980,
        mem_clock=2619,
        throttle=["power cap"] if (node, index) == (3, 3) else [],
        ecc_errors=0,
        pcie_rx=1e9,
        pcie_tx=1e9,
        processes=[4000 + index] if job else [],
        job=job,
        rank=rank,
    )


def node(
    number: int, *, job: str | None = None, state: str = "READY", sim: bool = False, gpus: int = 8
) -> NodeView:
    first = (number - 3) * gpus + 16
    busy = job is not None
    return NodeView(
        name=f"n{number:02d}",
        address=f"10.0.0.{number}",
        state=state,  # type: ignore[typeddict-item]
        reason="ECC errors on GPU 2" if state == "DRAINED" else "",
        gpus=[
            gpu(number, i, job=job, rank=max(0, first) + i if busy else None, sim=sim)
            for i in range(gpus)
        ],
        cpu={"count": 96.0, "util": 41.0 if busy else 3.0, "load": 40.0},
        memory={"used": 400 << 30 if busy else 12 << 30, "total": 1024 << 30},
        disk={"used": 2 << 40, "total": 7 << 40},
        net_rx=1.2e9 if busy else 1e4,
        net_tx=1.1e9 if busy else 1e4,
        jobs=[job] if job else [],
        free_gpus=0.0 if busy else float(gpus),
        free_cpus=0.0 if busy else 96.0,
        seen_at=at(0.4),
        age=0.4 if state != "LOST" else 72.0,
        labels={},
    )


def nodes(sim: bool = False) -> list[NodeView]:
    """28 nodes of 8 GPUs: most of them busy, two drained, one lost, two idle."""
    out: list[NodeView] = []
    for number in range(1, 29):
        if number in (25, 26):
            out.append(node(number, state="DRAINED", sim=sim))
        elif number == 28:
            out.append(node(number, state="LOST", sim=sim))
        elif number in (11, 12):
            out.append(node(number, sim=sim))
        else:
            owner = "j412" if number <= 8 else "j421" if number <= 18 else "j424"
            out.append(node(number, job=owner, sim=sim))
    return out


_NAMES = (
    "pretrain-13b",
    "eval-suite",
    "digits-ddp",
    "lora-sft",
    "vit-l14",
    "tokenise",
    "distil-small",
)
_USERS = ("mira", "chen", "otieno", "sofia")


def job(number: int, state: str = "SUCCEEDED", **over: Any) -> JobView:
    ended = state in ("SUCCEEDED", "FAILED", "CANCELLED")
    waiting = state in ("QUEUED", "PLACING", "STAGING")
    gpus = float((number * 8) % 24 or 64)
    view = JobView(
        id=f"j{number}",
        name=_NAMES[number % len(_NAMES)],
        user=_USERS[number % len(_USERS)],
        state=state,  # type: ignore[typeddict-item]
        reason={"FAILED": "rank 3 on n07 exited with code 1", "CANCELLED": "cancelled by mira"}.get(
            state, ""
        ),
        priority=50,
        nodes=max(1, int(gpus) // 8),
        ranks=int(gpus),
        gpus=gpus,
        cpus=gpus * 8,
        kind="gang",
        tags={"team": "vision"} if number % 2 else {},
        attempt=0 if waiting else 1,
        restarts=0,
        submitted_at=at((440 - number) * 660.0),
        started_at=None if waiting else at((440 - number) * 660.0 - 30),
        ended_at=at((440 - number) * 660.0 - 600) if ended else None,
        exit_code={"SUCCEEDED": 0, "FAILED": 1}.get(state),
        placed_on=[] if waiting else ["n01", "n02"],
        objective={"value": 0.9 + number % 9 / 100, "step": 100, "at": at(60)}
        if state == "SUCCEEDED"
        else None,
        revision=number,
    )
    view.update(over)  # type: ignore[typeddict-item]
    return view


def _ending(number: int) -> str:
    return "FAILED" if number % 11 == 0 else "CANCELLED" if number % 13 == 0 else "SUCCEEDED"


def jobs() -> list[JobView]:
    """41 jobs: 3 run, 4 wait with reasons, one stages, the others have ended."""
    out = [
        job(
            431,
            "QUEUED",
            gpus=64.0,
            nodes=8,
            reason="needs 8 GPUs on each of 8 nodes; 2 nodes have them free",
            priority=90,
        ),
        job(432, "QUEUED", gpus=8.0, nodes=1, reason="starts next"),
        job(433, "QUEUED", gpus=16.0, nodes=2, reason="behind j431 (priority 90)"),
        job(434, "QUEUED", gpus=8.0, nodes=1, reason="n25, n26 are drained", name="评估-长上下文"),
        job(430, "STAGING", gpus=8.0, nodes=1, reason="building the environment"),
        job(424, "RUNNING", placed_on=[f"n{n}" for n in range(19, 25)], gpus=48.0),
        job(421, "RUNNING", placed_on=[f"n{n:02d}" for n in range(9, 19)], gpus=64.0),
        job(
            412,
            "RUNNING",
            name="pretrain-7b",
            user="mira",
            gpus=16.0,
            nodes=2,
            ranks=16,
            attempt=2,
            restarts=1,
            placed_on=["n02", "n03"],
        ),
    ]
    ended = [number for number in range(397, 430) if number not in (412, 421, 424)]
    out += [job(number, _ending(number)) for number in ended]
    return out


def events() -> list[EventView]:
    told: list[tuple[float, str, str | None, str | None, str]] = [
        (4000, "info", "j412", None, "j412 submitted by mira"),
        (3900, "info", "j412", None, "j412.1 running on n02, n03"),
        (2400, "error", "j412", "n03", "j412.1 failed: rank 9 on n03 got SIGKILL"),
        (2390, "info", "j412", None, "j412 restarts from its checkpoint at step 8000"),
        (1500, "error", None, "n25", "n25 drained: ECC errors on GPU 2"),
        (1490, "error", None, "n26", "n26 drained: ECC errors on GPU 2"),
        (300, "warning", "j412", "n03", "n03 GPU 3 at 31 %, the others of j412 at 97 %"),
        (72, "error", None, "n28", "n28 does not answer"),
    ]
    return [
        EventView(
            id=i, at=at(ago), kind="job.state", severity=sev, job=j, node=n, user=None, message=m
        )  # type: ignore[typeddict-item]
        for i, (ago, sev, j, n, m) in enumerate(told, 1)
    ]


def rank(
    number: int, *, state: str = "RUNNING", exit_code: int | None = None, signal: str | None = None
) -> RankView:
    return RankView(
        rank=number,
        node="n02" if number < 8 else "n03",
        local_rank=number % 8,
        pid=4000 + number,
        gpus=[f"GPU-{2 if number < 8 else 3:02d}-{number % 8}"],
        state=state,  # type: ignore[typeddict-item]
        exit_code=exit_code,
        signal=signal,
        log_bytes=20_000 + number,
    )


def detail(view: JobView, ranks: int = 16) -> JobDetail:
    attempts: list[AttemptView] = [
        {
            "id": f"{view['id']}.1",
            "number": 1,
            "state": "LOST" if view["state"] == "RUNNING" else view["state"],  # type: ignore[typeddict-item]
            "reason": "restarted from step 8000",
            "started_at": at(3900),
            "ended_at": at(2400),
            "first_failure": {
                "rank": 9,
                "node": "n03",
                "exit_code": None,
                "signal": "SIGKILL",
                "tail": [
                    "step 8110 loss 2.31",
                    "torch.cuda.OutOfMemoryError: CUDA out of memory",
                    "Killed",
                ],
                "reason": "the kernel killed it for memory.",
            },
            "ranks": [
                rank(i, state="EXITED", signal="SIGKILL" if i == 9 else None) for i in range(ranks)
            ],
        }
    ]
    if view["state"] == "RUNNING":
        attempts.append(
            {
                "id": f"{view['id']}.2",
                "number": 2,
                "state": "RUNNING",
                "reason": "",
                "started_at": at(2380),
                "ended_at": None,
                "first_failure": None,
                "ranks": [rank(i) for i in range(ranks)],
            }
        )
    return JobDetail(
        **view,
        spec={"command": "python train.py"},
        snapshot="sha256:" + "a" * 64,
        git=None,
        attempts=attempts,
        metrics={"loss": {"value": 2.1, "step": 9000, "at": at(1)}},
        artifacts=[],
    )


def history(seconds: int, points: int, level: float = 88.0) -> list[HistoryPoint]:
    out: list[HistoryPoint] = []
    for i in range(points):
        mean = level + 8 * math.sin(i / 9)
        low = 12.0 if i == points // 2 else mean - 3
        when = NOW - seconds + (i + 0.5) * seconds / points
        out.append({"at": when, "mean": mean, "low": low, "high": min(100.0, mean + 3)})
    return out


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
        self.logs: dict[int, bytes] = {
            r: "".join(
                f"step {i} loss {3 - i / 900:.3f} tok/s {31_000 + r}\n" for i in range(800)
            ).encode()
            for r in range(16)
        }
        self.logs[0] += "\x1b[32mok\x1b[0m\tdone \x1b]0;own title\x07 ünï 长上下文\n".encode()
        self.older: list[JobView] = []  # newest first, beyond those that are watched
        self.acts: list[tuple[str, str]] = []
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

    def whole_log(self, job: str, attempt: int, rank: int | None) -> FakeStream:
        self._check(f"whole {job}")
        stream = FakeStream()
        for one in sorted(self.logs):
            for said in self.logs[one].decode().splitlines()[-3:]:
                stream.push({"rank": one, "offset": 0, "at": at(1), "line": said})
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

    def node(self, name: str) -> NodeView:
        self._check(f"node view {name}")
        found: NodeView = self.tables["nodes"][name]
        return found

    def series(self, job: str, points: int) -> dict[str, list[SeriesPoint]]:
        self._check(f"series {job}")
        steps = range(0, 9000, 45)
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

    def act(self, verb: str, target: str) -> None:
        self._check(f"act {verb}")
        if self.refuse is not None:
            raise self.refuse
        self.acts.append((verb, target))


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
