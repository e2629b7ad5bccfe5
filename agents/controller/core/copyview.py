"""What people see of copies of checkpoints: which was the last, and what a restart would cost now."""

from __future__ import annotations

from typing import cast

from agents.controller.core.copying import Copier
from agents.controller.core.live import Live
from jobs.base.times import parse_time, rfc3339
from jobs.base.units import format_size
from jobs.base.words import counted
from jobs.spec.job import JobSpec
from jobs.store.copies import Copy
from jobs.wire.views import CheckpointView, CopyView, JobDetail


def view_of(copier: Copier, live: Live | None, job: JobDetail, now: float) -> CheckpointView | None:
    """None for a job of which nothing is copied.

    Args:
        live: the job, unless it is over.
        now: unix time.
    """
    number = int(job["id"][1:])
    copies = copier.copies.of(number)
    copying = JobSpec.from_json(job["spec"]).copying
    if not copies and (live is None or not copier.copying(live)):
        return None
    progress, problem = copier.standing(number)
    newest = copies[-1] if copies else None
    steps, seconds = _lost(job, newest, now)
    text = _last(newest, now)
    if job["state"] == "RUNNING":
        text += _cost(steps, seconds)
    if progress:
        text += f"; a copy is being made, {progress}"
    if problem:
        text += f"; not copied now: {problem}; training goes on"
    return {
        "copy": copying,
        "copies": [_view(copy) for copy in reversed(copies)],
        "progress": progress,
        "problem": problem,
        "lost_steps": steps,
        "lost_seconds": None if seconds is None else round(seconds, 1),
        "text": text,
    }


def _lost(job: JobDetail, newest: Copy | None, now: float) -> tuple[int | None, float | None]:
    if job["state"] != "RUNNING":
        return None, None
    began = job["attempts"][-1]["started_at"] if job["attempts"] else None
    since = newest.at if newest is not None else None
    if since is None and began is not None:
        since = parse_time(began)
    seconds = max(0.0, now - since) if since is not None else None
    latest = max((metric["step"] for metric in job["metrics"].values()), default=None)
    behind = newest.step if newest is not None else 0
    if latest is None or behind is None:
        return None, seconds
    return max(0, latest - behind), seconds


def _last(newest: Copy | None, now: float) -> str:
    if newest is None:
        return "no copy yet"
    step = f"step {newest.step}" if newest.step is not None else "a checkpoint"
    names = ", ".join(newest.names[:3]) + (", ..." if len(newest.names) > 3 else "")
    return f"copied {step} ({names}), {format_size(newest.size)}, {_ago(now - newest.at)} old"


def _cost(steps: int | None, seconds: float | None) -> str:
    if seconds is None:
        return ""
    what = f"{counted(steps, 'step')}, " if steps is not None else ""
    return f"; a restart on other nodes would now cost {what}{_ago(seconds)}"


def _ago(seconds: float) -> str:
    seconds = max(0.0, seconds)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _view(copy: Copy) -> CopyView:
    return cast(
        CopyView,
        {
            "names": list(copy.names),
            "step": copy.step,
            "at": rfc3339(copy.at),
            "copied_at": rfc3339(copy.copied_at),
            "seconds": copy.seconds,
            "files": copy.files,
            "size": copy.size,
            "sent": copy.sent,
            "attempt": copy.attempt,
            "digest": copy.digest,
        },
    )
