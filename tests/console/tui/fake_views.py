"""Plausible views for tests of the console: nodes, jobs, events, ranks. All from fixed numbers."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any, Literal

from jobs.wire.views import (
    AttemptView,
    EventView,
    GpuView,
    HistoryPoint,
    JobDetail,
    JobView,
    NodeView,
    RankView,
)

NOW = 1_790_000_000.0  # a fixed moment in 2026


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
    told: list[tuple[float, Literal["info", "warning", "error"], str | None, str | None, str]] = [
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
        )
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
        image="",
        git=None,
        warnings=[],
        checkpoint=None,
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
