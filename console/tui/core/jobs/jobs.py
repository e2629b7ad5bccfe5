"""The jobs of the Jobs screen in words: their columns and their filter. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from console.tui.core.base.filter import Filter, parse
from console.tui.core.base.table import Column
from console.tui.core.cluster.cluster import natural
from console.tui.core.draw.format import (
    age,
    clock,
    count,
    job_glyph,
    job_tone,
    job_word,
    moment,
    number,
    span,
)
from console.tui.core.draw.glyphs import Glyphs
from jobs.base.states import JOB_STATES
from jobs.wire.views import JobView


def duration(job: JobView, now: float) -> float | None:
    """Seconds that the job ran or has run; None before it started."""
    start, end = moment(job["started_at"]), moment(job["ended_at"])
    if start is None:
        return None
    return (now if end is None else end) - start


def _id(job: JobView, now: float, glyphs: Glyphs) -> tuple[str, str]:
    return f"  {job['id']}" if job["tags"].get("sweep") else job["id"], "strong"


def _time(job: JobView, now: float, glyphs: Glyphs) -> tuple[str, str]:
    ran = duration(job, now)
    if ran is None:
        return age(job["submitted_at"], now), "dim"
    return span(ran), ""


def _state(job: JobView, now: float, glyphs: Glyphs) -> tuple[str, str]:
    return f"{job_glyph(job, glyphs)} {job_word(job)}", job_tone(job)


def _submitted(job: JobView, now: float, glyphs: Glyphs) -> tuple[str, str]:
    at = moment(job["submitted_at"])
    return ("-" if at is None else clock(at)), "dim"


def _objective(job: JobView, now: float, glyphs: Glyphs) -> tuple[str, str]:
    best = job["objective"]
    return ("" if best is None else number(best["value"])), "info"


def _reason(job: JobView, now: float, glyphs: Glyphs) -> tuple[str, str]:
    return job["reason"], "error" if job["state"] == "FAILED" else "dim"


def _value(job: JobView) -> float | None:
    return None if job["objective"] is None else job["objective"]["value"]


def number_of(job: JobView) -> int:
    """12 of `j12`: later jobs have greater numbers."""
    return int(job["id"][1:])


COLUMNS: tuple[Column[JobView], ...] = (
    Column("id", 8, _id, order=number_of),
    Column("state", 11, _state, order=lambda j: JOB_STATES.index(j["state"])),
    Column("name", 14, lambda j, n, g: (j["name"], ""), grow=2, order=lambda j: natural(j["name"])),
    Column("user", 8, lambda j, n, g: (j["user"], ""), rank=1, order=lambda j: j["user"]),
    Column(
        "gpus",
        4,
        lambda j, n, g: (count(j["gpus"]) if j["gpus"] else "-", ""),
        right=True,
        order=lambda j: j["gpus"],
    ),
    Column(
        "ranks",
        5,
        lambda j, n, g: (str(j["ranks"]), ""),
        rank=2,
        right=True,
        order=lambda j: j["ranks"],
    ),
    # By the moment it started: what runs changes its duration each second, but not its place.
    Column("time", 5, _time, right=True, order=lambda j: j["started_at"]),
    Column(
        "prio",
        4,
        lambda j, n, g: (str(j["priority"]), "dim"),
        rank=4,
        right=True,
        order=lambda j: j["priority"],
    ),
    Column(
        "try",
        3,
        lambda j, n, g: (str(j["attempt"]), "dim"),
        rank=5,
        right=True,
        order=lambda j: j["attempt"],
    ),
    Column("at", 5, _submitted, rank=6, order=lambda j: j["submitted_at"]),
    Column("objective", 9, _objective, rank=3, right=True, order=_value),
    Column("reason", 16, _reason, rank=1, grow=3),
    Column("on", 16, lambda j, n, g: (", ".join(j["placed_on"]), "dim"), rank=7, grow=1),
)

FIELDS: Mapping[str, Callable[[JobView], Any]] = {
    "id": lambda job: job["id"],
    "name": lambda job: job["name"],
    "user": lambda job: job["user"],
    "state": lambda job: job["state"],
    "gpu": lambda job: job["gpus"],
    "gpus": lambda job: job["gpus"],
    "cpus": lambda job: job["cpus"],
    "ranks": lambda job: job["ranks"],
    "nodes": lambda job: job["nodes"],
    "prio": lambda job: job["priority"],
    "restarts": lambda job: job["restarts"],
    "kind": lambda job: job["kind"],
    "sweep": lambda job: job["tags"].get("sweep", ""),
    "pipeline": lambda job: job["tags"].get("pipeline", ""),
}
IDS = ("id", "sweep", "pipeline")


def _anywhere(job: JobView) -> str:
    tags = " ".join(f"{key}={value}" for key, value in job["tags"].items())
    where = " ".join(job["placed_on"])
    return " ".join((job["id"], job["name"], job["user"], job["state"], job["reason"], tags, where))


def job_filter(text: str) -> Filter[JobView]:
    return parse(text, FIELDS, _anywhere, IDS)
