"""A plausible sweep for tests of the console: forty trials of a training, the same each time."""

from __future__ import annotations

import math
import random
from typing import Any

from jobs.wire.sweepviews import CurveView, ObjectiveView, SweepDetail, SweepView, TrialView
from jobs.wire.views import JobView
from tests.console.tui.fake_views import NOW, at, job

SPACE: dict[str, dict[str, Any]] = {
    "lr": {"low": 1e-4, "high": 1e-1, "log": True},
    "width": {"choices": [64, 128, 192, 256]},
    "layers": {"low": 1, "high": 4},
    "dropout": {"low": 0.0, "high": 0.5},
    "optimizer": {"choices": ["sgd", "adam"]},
    "momentum": {"low": 0.0, "high": 0.95, "when": {"optimizer": "sgd"}},
}
STEPS = 12
RAN = 30.0  # seconds of a trial that is not pruned


def _point(dice: random.Random) -> dict[str, Any]:
    point: dict[str, Any] = {
        "lr": 10 ** dice.uniform(-4, -1),
        "width": dice.choice([64, 128, 192, 256]),
        "layers": dice.randint(1, 4),
        "dropout": dice.uniform(0.0, 0.5),
        "optimizer": dice.choice(["sgd", "adam"]),
    }
    if point["optimizer"] == "sgd":
        point["momentum"] = dice.uniform(0.0, 0.95)
    return point


def _worth(point: dict[str, Any]) -> float:
    """What a point reaches: a broad hill around lr 0.005, width 192, 2 layers."""
    far = (math.log10(point["lr"]) + 2.3) ** 2 * 0.06 + abs(point["width"] - 192) / 2500
    far += abs(point["layers"] - 2) * 0.006 + abs(point["dropout"] - 0.2) * 0.03
    return 0.985 - float(far)


def curve(number: int, point: dict[str, Any], steps: int) -> list[tuple[int, float]]:
    dice = random.Random(1000 + number)
    top = _worth(point)
    return [
        (s, top - (top - 0.1) * math.exp(-s / 2.2) * 0.6 + dice.uniform(-0.004, 0.004))
        for s in range(1, steps + 1)
    ]


def trial(number: int, state: str, slot: int, began: float, **over: Any) -> TrialView:
    """A trial that began so many seconds ago on a GPU of its own."""
    point = _point(random.Random(number))
    steps = {"PRUNED": 2 + number % 4, "RUNNING": 3 + number % 7, "FAILED": 1}.get(state, STEPS)
    steps = 0 if state == "QUEUED" else steps
    reached = curve(number, point, steps)
    over_ = state not in ("RUNNING", "QUEUED", "STOPPING")
    ended = began - RAN * steps / STEPS
    view: dict[str, Any] = {
        "number": number,
        "state": state,
        "params": point,
        "values": [reached[-1][1]] if state == "COMPLETE" else None,
        "job": f"j{500 + number}",
        "job_state": "SUCCEEDED" if over_ else "RUNNING" if steps else "QUEUED",
        "reason": {
            "PRUNED": f"pruned at step {steps}",
            "FAILED": "rank 0 exited with code 1",
        }.get(state, ""),
        "last": reached[-1][1] if reached else None,
        "step": steps or None,
        "losses": 0,
        "nodes": [f"n{1 + slot // 8:02d}"] if steps else [],
        "gpus": [f"GPU-{1 + slot // 8:02d}-{slot % 8}"] if steps else [],
        "asked_at": at(began + 0.3),
        "started_at": at(began) if steps else None,
        "ended_at": at(ended) if over_ else None,
        "gpu_hours": 0.01,
        "origin": "enqueued" if number == 0 else "drawn",
        "parent": None,
        "member": None,
        "generation": None,
        "pinned": False,
        "constraints": None,
        "feasible": None,
    }
    return view | over  # type: ignore[return-value]


def trials(many: int = 40, parallel: int = 4, open_: int = 4) -> list[TrialView]:
    """Trials on `parallel` GPUs one after another; the last `open_` of them run or wait."""
    states = []
    for number in range(many):
        dice = random.Random(77 + number)
        if number >= many - open_:
            states.append("QUEUED" if number == many - 1 else "RUNNING")
        elif number == 11:
            states.append("FAILED")
        elif number > 7 and _worth(_point(random.Random(number))) < 0.93 + dice.uniform(0, 0.02):
            states.append("PRUNED")
        else:
            states.append("COMPLETE")
    # Backwards from now: each slot is handed from trial to trial with a breath between them.
    clock = [0.0] * parallel
    out: list[TrialView] = []
    for number in reversed(range(many)):
        slot = min(range(parallel), key=lambda s: clock[s])
        state = states[number]
        steps = {"PRUNED": 2 + number % 4, "RUNNING": 3 + number % 7, "FAILED": 1}.get(state, STEPS)
        length = 0.0 if state == "QUEUED" else RAN * steps / STEPS
        out.append(trial(number, state, slot, clock[slot] + length))
        clock[slot] += length + (0.4 if length else 0.0)
    return sorted(out, key=lambda t: t["number"])


def curves(known: list[TrialView]) -> list[CurveView]:
    return [
        {"number": t["number"], "state": t["state"], "points": curve(t["number"], t["params"], t["step"])}
        for t in known
        if t["step"]
    ]  # fmt: skip


def sweep(number: int, known: list[TrialView], state: str = "RUNNING", **over: Any) -> SweepView:
    count = {
        name: sum(t["state"] == name.upper() for t in known)
        for name in ("complete", "pruned", "failed", "cancelled")
    }
    done = [t for t in known if t["state"] == "COMPLETE"]
    best = max(done, key=lambda t: (t["values"] or [0.0])[0], default=None)
    began = max((NOW - _seconds(t["asked_at"]) for t in known), default=60.0)
    objectives: list[ObjectiveView] = [{"metric": "val_acc", "goal": "maximize"}]
    view: dict[str, Any] = {
        "id": f"s{number}",
        "name": "digits-sweep",
        "user": "mira",
        "state": state,
        "reason": "all trials are done" if state == "FINISHED" else "",
        "objectives": objectives,
        "sampler": "tpe",
        "pruner": "asha",
        "trials": 60 if state == "RUNNING" else len(known),
        "parallel": 4,
        "counts": {**count, "open": len(known) - sum(count.values()), "total": len(known)},
        "best": best and {k: best[k] for k in ("number", "values", "params", "job")},
        "time_budget": None,
        "gpu_hours_budget": None,
        "gpu_hours": 0.31,
        "submitted_at": at(began + 1),
        "ended_at": at(5) if state in ("FINISHED", "FAILED") else None,
    }
    return view | over  # type: ignore[return-value]


def _seconds(text: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(text).timestamp()


def detail(view: SweepView) -> SweepDetail:
    return {
        **view,
        "spec": {"space": SPACE, "enqueue": []},
        "snapshot": None,
        "study": f"{view['id']}-{view['name']}",
        "front": [],
    }


IMPORTANCE = {
    "lr": 0.61,
    "width": 0.17,
    "layers": 0.1,
    "dropout": 0.08,
    "momentum": 0.03,
    "optimizer": 0.01,
}


def tables() -> dict[str, dict[str, Any]]:
    """What is watched: a sweep that runs (s4), one of two objectives that is over (s3), and older ones."""
    live = trials()
    two = trials(60, open_=0)
    for trial in two:
        if trial["values"]:
            wide: Any = trial["params"]["width"]
            trial["values"] = [trial["values"][0], 40.0 + 200 * wide / 256 + trial["number"] % 7]
    objectives: list[ObjectiveView] = [
        {"metric": "val_acc", "goal": "maximize"},
        {"metric": "ms", "goal": "minimize"},
    ]
    views = [
        sweep(4, live),
        sweep(
            3,
            two,
            "FINISHED",
            name="digits-latency",
            objectives=objectives,
            best=None,
            sampler="nsga2",
            pruner="none",
        ),
        sweep(2, live[:12], "PAUSED", name="lora-rank", user="chen", reason="paused by chen"),
        sweep(
            1,
            [],
            "FAILED",
            name="typo",
            best=None,
            reason="3 trials have ended without logging acc",
            ended_at=at(9000),
            submitted_at=at(9100),
        ),
    ]
    held: dict[str, dict[str, Any]] = {"sweeps": {view["id"]: view for view in views}}
    trials_of: tuple[list[TrialView], ...] = (live, two, live[:12], [])
    for view, known in zip(views, trials_of, strict=True):
        rows = {str(t["number"]): t for t in known}
        held[f"sweep:{view['id']}"] = {view["id"]: detail(view), **rows}
    return held


def jobs(sweep: SweepView, known: list[TrialView]) -> dict[str, JobView]:
    """The jobs of a sweep's trials, as the Jobs screen is sent them."""
    return {
        trial["job"]: job(
            int(trial["job"][1:]),
            "CANCELLED"
            if trial["state"] == "PRUNED"
            else _JOB_STATES.get(trial["state"], "SUCCEEDED"),
            name=f"{sweep['name']}-{trial['number']}",
            user=sweep["user"],
            tags={"sweep": sweep["id"], "trial": str(trial["number"])},
            gpus=1.0,
            nodes=1,
            ranks=1,
            reason=f"cancelled by sweep {sweep['id']}"
            if trial["state"] == "PRUNED"
            else trial["reason"],
            submitted_at=trial["asked_at"],
            started_at=trial["started_at"],
            ended_at=trial["ended_at"],
            placed_on=trial["nodes"],
            objective=None
            if trial["last"] is None
            else {"value": trial["last"], "step": trial["step"] or 0, "at": trial["asked_at"]},
        )
        for trial in known
    }


_JOB_STATES = {"RUNNING": "RUNNING", "QUEUED": "QUEUED", "FAILED": "FAILED"}
