"""The columns of the Jobs screen that a person chooses: parameters, metrics and tags among them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rich.cells import cell_len

from console.tui.core.base.table import Column
from console.tui.core.draw.format import number
from console.tui.core.draw.glyphs import Glyphs, block
from console.tui.core.jobs.jobs import COLUMNS, duration
from jobs.base.states import TERMINAL
from jobs.wire.runviews import RunView
from jobs.wire.views import JobView

Facts = Mapping[str, RunView]
"""What is known of jobs beyond their rows, by their ids."""

FIXED = ("id", "state", "name")
"""Always there."""
TREND = "trend"
TREND_CELLS = 12
GPU_HOURS = "gpu h"
KINDS = ("param.", "metric.", "tag.")
AGAIN = 10.0
"""Seconds after which what a job that runs has logged is read again."""
AT_ONCE = 100
"""Jobs that are asked for with one request: their ids fit into a filter of `GET /v1/runs`."""

_OWN = {column.title: column for column in COLUMNS}
DEFAULT = tuple(title for title in _OWN if title not in FIXED)


def _gpu_hours(job: JobView, now: float) -> float | None:
    ran = duration(job, now)
    return None if ran is None else job["gpus"] * ran / 3600


def needs_facts(names: Iterable[str]) -> bool:
    """Whether columns show what the rows of jobs do not have."""
    return any(name == TREND or name.startswith(KINDS) for name in names)


def offered(chosen: Sequence[str], jobs: Iterable[JobView], facts: Facts) -> list[str]:
    """All columns that can be chosen: first those that are, then the others."""
    tags = {f"tag.{name}" for job in jobs for name in job["tags"]}
    params: set[str] = set()
    metrics: set[str] = set()
    for run in facts.values():
        params.update(f"param.{name}" for name in run["params"])
        metrics.update(f"metric.{name}" for name in run["metrics"])
        tags.update(f"tag.{name}" for name in run["tags"])
    rest = [*DEFAULT, GPU_HOURS, TREND, *sorted(params), *sorted(metrics), *sorted(tags)]
    return [*chosen, *(name for name in rest if name not in chosen)]


def about(name: str) -> str:
    """What a column shows, where its name does not say it."""
    return {
        GPU_HOURS: "GPUs, times how long ago it first started or how long it took",
        TREND: "the objective by steps, between its extremes",
        "on": "nodes",
        "at": "when it was submitted",
        "try": "attempts",
        "prio": "priority",
        "reason": "why it waits, or how it ended",
    }.get(name, "")


def made(names: Sequence[str], facts: Facts, now: float) -> tuple[Column[JobView], ...]:
    """The columns of these names, after those that are always there; all that are usual where none is
    chosen. What is last is left out first where the width is short."""
    fixed = [_OWN[name] for name in FIXED]
    if not names:
        return (*fixed, *(_OWN[name] for name in DEFAULT))
    short = [name.partition(".")[2] for name in names if name.startswith(KINDS)]
    out = list(fixed)
    for place, name in enumerate(names, 1):
        if (own := _OWN.get(name)) is not None:
            out.append(replace(own, rank=place))
        elif name == GPU_HOURS:
            out.append(
                Column(name, 7, _hours, place, right=True, order=lambda j: _gpu_hours(j, now))
            )
        elif name == TREND:
            out.append(Column(name, TREND_CELLS, _trend(facts), place))
        elif name.startswith(KINDS):
            bare = name.partition(".")[2]
            taken = bare in _OWN or bare in (TREND, GPU_HOURS) or short.count(bare) > 1
            title = name if taken else bare
            out.append(_of_facts(title, name, facts, place))
    return tuple(out)


def _hours(job: JobView, now: float, glyphs: Glyphs) -> tuple[str, str]:
    hours = _gpu_hours(job, now)
    if hours is None:
        return "-", "dim"
    return (
        f"{hours:,.0f}" if hours >= 100 else f"{hours:.1f}" if hours >= 10 else f"{hours:.2f}"
    ), ""


def _trend(facts: Facts) -> Callable[[JobView, float, Glyphs], tuple[str, str]]:
    def cell(job: JobView, now: float, glyphs: Glyphs) -> tuple[str, str]:
        run = facts.get(job["id"])
        return ("", "") if run is None else (sparkline(run.get("curve", []), glyphs), "info")

    return cell


def sparkline(values: Sequence[float], glyphs: Glyphs, cells: int = TREND_CELLS) -> str:
    """Values in their order as blocks between their extremes: each stands for the last of its stretch, as
    the value that was reached."""
    if not values:
        return ""
    least, most = min(values), max(values)
    count = min(cells, len(values))
    shown = [values[(at + 1) * len(values) // count - 1] for at in range(count)]
    if most == least:
        return block(0.5, glyphs) * count
    return "".join(block((value - least) / (most - least) * 0.999, glyphs) for value in shown)


def _of_facts(title: str, name: str, facts: Facts, rank: int) -> Column[JobView]:
    """A column of a parameter, a metric or a tag."""
    kind, _, bare = name.partition(".")

    def value(job: JobView) -> Any:
        run = facts.get(job["id"])
        if run is None:
            return job["tags"].get(bare) if kind == "tag" else None
        held: Mapping[str, Any] = run[f"{kind}s"]  # type: ignore[literal-required]
        return held.get(bare)

    def cell(job: JobView, now: float, glyphs: Glyphs) -> tuple[str, str]:
        held = value(job)
        return _text(held), "" if kind != "tag" else "dim"

    def order(job: JobView) -> Any:
        held = value(job)
        # Numbers before words: a column may hold both.
        if isinstance(held, (bool, int, float)):
            return (False, float(held), "")
        return None if held is None else (True, 0.0, _text(held))

    words = kind == "tag"
    least = 10 if words else 8
    return Column(
        title, max(least, min(cell_len(title), 16)), cell, rank, right=not words, order=order
    )


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return number(float(value)) if isinstance(value, float) else str(value)


def asked(
    jobs: Sequence[JobView],
    facts: Facts,
    read_at: Mapping[str, float],
    now: float,
) -> list[str]:
    """Ids of the jobs to ask for next: those that nothing is known of, that have ended since, or that run
    and were read a while ago."""
    out: list[str] = []
    for job in jobs:
        run = facts.get(job["id"])
        ended = job["state"] in TERMINAL
        if job["id"] not in read_at or (
            (run is not None and run["state"] != job["state"] and ended)
            or (not ended and now - read_at[job["id"]] >= AGAIN)
        ):
            out.append(job["id"])
    return out[:AT_ONCE]
