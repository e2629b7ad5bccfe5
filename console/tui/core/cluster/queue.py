"""What waits and what runs, in words. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from console.tui.core.base.order import Order, arranged
from console.tui.core.base.world import World
from console.tui.core.cluster.cluster import live, natural
from console.tui.core.draw.format import age, count, job_glyph, job_tone
from console.tui.core.draw.glyphs import Glyphs
from console.tui.core.draw.lines import Line, fit, line
from jobs.wire.views import JobView

_SORTS: dict[str, Callable[[JobView], Any]] = {
    "user": lambda job: job["user"],
    "name": lambda job: natural(job["name"]),
    "gpus": lambda job: job["gpus"],
    "since": lambda job: job["started_at"] or job["submitted_at"],
}

SORTABLE = tuple(_SORTS)
"""What the queue can be sorted by, beside its own order."""


def queue(world: World, order: Order | None = None) -> list[JobView]:
    """Jobs that wait, in the order in which they are considered, then those that run, oldest first; or in
    an order of one's own, what waits still before what runs."""
    jobs = live(world.jobs)
    waiting = [job for job in jobs if job["state"] not in ("RUNNING", "STOPPING")]
    running = [job for job in jobs if job["state"] in ("RUNNING", "STOPPING")]
    waiting.sort(key=lambda job: (-job["priority"], job["submitted_at"], natural(job["id"])))
    running.sort(key=lambda job: (job["started_at"] or "", natural(job["id"])))
    if order is not None and order.column:
        key = _SORTS[order.column]
        waiting = arranged(waiting, key, descending=order.descending)
        running = arranged(running, key, descending=order.descending)
    return waiting + running


def queue_line(job: JobView, now: float, width: int, glyphs: Glyphs) -> Line:
    """Who wants what, since when, and why it waits."""
    running = job["state"] in ("RUNNING", "STOPPING")
    since = job["started_at"] if running else job["submitted_at"]
    wants = f"{count(job['gpus'])}GPU" if job["gpus"] else f"{count(job['cpus'])}CPU"
    name = max(8, min(24, width - 56))
    where = ", ".join(job["placed_on"])
    reason = job["reason"] or (f"on {where}" if running and where else job["state"].lower())
    tone = job_tone(job)
    cut = glyphs.ellipsis
    used = 3 + 7 + 8 + 1 + name + 1 + 6 + 1 + 5 + 1
    return line(
        (f" {job_glyph(job, glyphs)} ", tone),
        (fit(job["id"], 7, ellipsis=cut), "strong"),
        fit(job["user"], 8, ellipsis=cut) + " ",
        fit(job["name"], name, ellipsis=cut) + " ",
        fit(wants, 6, right=True, ellipsis=cut) + " ",
        (fit(age(since, now), 5, right=True, ellipsis=cut) + " ", "dim"),
        (fit(reason, width - used, ellipsis=cut), _emphasis(job, running=running)),
    )


def _emphasis(job: JobView, *, running: bool) -> str:
    if job.get("stalled"):
        return "warn"
    return "dim" if running else ""
