"""Plausible runs of pipelines, schedules and alerts for tests of the console."""

from __future__ import annotations

from typing import Any

from jobs.wire.alertviews import AlertView, SilenceView
from jobs.wire.flowviews import PipelineView, ScheduleView, TaskView
from tests.console.tui.fake_views import at


def task(step: str, state: Any, needs: str = "", number: int = 0, **over: Any) -> TaskView:
    started = state not in ("WAITING", "SKIPPED")
    view = TaskView(
        step=step,
        number=number,
        matrix={},
        kind="job",
        left={},
        needs=needs.split(),
        state=state,
        job_state="RUNNING" if state == "RUNNING" else "",
        reason="",
        tries=1 if started else 0,
        job=None,
        sweep=None,
        taken_from=None,
        started_at=at(900) if started else None,
        ended_at=at(600) if started and state != "RUNNING" else None,
    )
    view.update(over)  # type: ignore[typeddict-item]
    return view


def tasks() -> list[TaskView]:
    """A run from data to a deployment: checked, some taken from before, training, waiting."""
    out = [
        task("check", "SUCCEEDED", kind="data-check", left={"data": "digits@v7"}),
        task("features", "CACHED", "check", job="j397", taken_from="p5"),
        task("search", "SUCCEEDED", "features", kind="sweep", sweep="s3", ended_at=at(400)),
        task("train", "RUNNING", "features search", job="j412", started_at=at(390)),
    ]
    rates = ("0.1", "0.03", "0.01")
    states = (("SUCCEEDED", "j398"), ("FAILED", "j407"), ("RUNNING", "j431"))
    for number, (rate, (state, job)) in enumerate(zip(rates, states, strict=True)):
        out.append(
            task(
                "ablate", state, "features", number, matrix={"lr": rate}, job=job,
                job_state="QUEUED" if job == "j431" else "",
                reason="rank 3 on n07 exited with code 1" if state == "FAILED" else "",
            )
        )  # fmt: skip
    return [
        *out,
        task("evaluate", "WAITING", "train"),
        task("register", "WAITING", "evaluate", kind="register"),
        task("gate", "WAITING", "register", kind="gate"),
        task("approve", "WAITING", "gate", kind="approval"),
        task("canary", "WAITING", "approve", kind="deploy"),
        task("tell", "WAITING", "canary ablate", kind="notify"),
    ]


def counts(held: list[TaskView]) -> dict[str, int]:
    out: dict[str, int] = {}
    for one in held:
        out[one["state"]] = out.get(one["state"], 0) + 1
    return {**out, "total": len(held)}


def run(number: int, state: Any, name: str = "digits-nightly", **over: Any) -> PipelineView:
    ended = state not in ("RUNNING", "STOPPING")
    view = PipelineView(
        id=f"p{number}",
        name=name,
        user="mira" if number % 2 else "chen",
        state=state,
        reason="",
        params={"epochs": 3, "data": "digits@latest"},
        counts={"SUCCEEDED": 6, "total": 6},
        running=[],
        submitted_at=at((9 - number) * 7200 + 1000),
        ended_at=at((9 - number) * 7200) if ended else None,
    )
    view.update(over)  # type: ignore[typeddict-item]
    return view


def runs() -> list[PipelineView]:
    held = tasks()
    return [
        run(9, "RUNNING", counts=counts(held), running=["ablate", "train"]),
        run(8, "RUNNING", "retrain", counts={"SUCCEEDED": 3, "RUNNING": 1, "WAITING": 1, "total": 5},
            running=["approve"]),
        run(7, "FAILED", reason="train failed: rank 3 on n07 exited with code 1",
            counts={"SUCCEEDED": 2, "FAILED": 1, "SKIPPED": 3, "total": 6}),
        run(6, "CANCELLED", "ocr-weekly", reason="cancelled by mira",
            counts={"SUCCEEDED": 1, "CANCELLED": 5, "total": 6}),
        run(5, "SUCCEEDED", reason="4 runs of steps, 2 taken from before",
            counts={"SUCCEEDED": 4, "CACHED": 2, "total": 6}),
    ]  # fmt: skip


def schedule(name: str, pipeline: str, state: Any = "ACTIVE", **over: Any) -> ScheduleView:
    view = ScheduleView(
        name=name,
        user="mira",
        pipeline=pipeline,
        state=state,
        schedule={"cron": "30 2 * * *", "zone": "Europe/Berlin"},
        told="30 2 * * * in Europe/Berlin",
        params={},
        next=[at(-3600 * 24 * day - 7200) for day in range(5)] if state == "ACTIVE" else [],
        fired=12,
        firings=[
            {"moment": at(79_200), "state": "STARTED", "reason": "", "pipeline": "p9", "cause": None,
             "at": at(79_200)},
            {"moment": at(165_600), "state": "SKIPPED", "reason": "p7 is not over", "pipeline": None,
             "cause": None, "at": at(165_600)},
        ],
        added_at=at(3_000_000),
    )  # fmt: skip
    view.update(over)  # type: ignore[typeddict-item]
    return view


def schedules() -> list[ScheduleView]:
    return [
        schedule("ocr-weekly", "ocr-weekly", "PAUSED", firings=[], fired=0),
        schedule("nightly", "digits-nightly"),
        schedule(
            "hourly-check", "check", told="every 1h", next=[at(-1800 - 3600 * n) for n in range(5)]
        ),
    ]


def alert(rule: str, subject: str, text: str, state: Any = "FIRING", **over: Any) -> AlertView:
    view = AlertView(
        rule=rule,
        subject=subject,
        state=state,
        severity="error",
        text=text,
        node="",
        since=at(720),
        told_at=at(710),
        acked_by="",
        acked_why="",
        changed_at=at(700),
        silence=None,
    )
    view.update(over)  # type: ignore[typeddict-item]
    return view


def silence(rule: str, reason: str) -> SilenceView:
    return {
        "id": 1,
        "rule": rule,
        "subject": "*",
        "until": at(-3600),
        "user": "chen",
        "reason": reason,
    }


def alerts() -> list[AlertView]:
    return [
        alert("disk_full", "the head's disk", "8 % of /var/lib/quarterdeck is free", "PENDING",
              told_at=None, since=at(12)),
        alert("node_lost", "node n28", "n28 does not answer", node="n28", since=at(72)),
        alert("job_stalled", "j412", "j412.2: no rank has logged a step for 14 minutes"),
        alert("queue_stuck", "the queue", "4 jobs in the queue, the oldest for 1 h 39 min",
              severity="warning", since=at(2300)),
        alert("node_quarantined", "node n25", "n25 is quarantined: ECC errors on GPU 2", node="n25",
              severity="warning", acked_by="mira", acked_why="replaced on Tuesday", since=at(90_000)),
        alert("schedule_missed", "schedule nightly", "nightly missed 2 moments, the last at 02:30",
              severity="warning", silence=silence("schedule_*", "the head is being moved")),
        alert("pipeline_failed", "p7", "p7 failed: train failed", "RESOLVED", changed_at=at(14_000),
              since=at(14_400)),
    ]  # fmt: skip
