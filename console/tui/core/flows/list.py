"""The list of pipelines in words: its columns, its order and its filter. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from console.tui.core.base.filter import Filter, parse
from console.tui.core.base.order import Order
from console.tui.core.base.table import Column, in_order
from console.tui.core.cluster.cluster import natural
from console.tui.core.draw.format import STATE_TONE, age, coarse, moment, state_glyph
from console.tui.core.draw.glyphs import Glyphs
from console.tui.core.draw.lines import Line, Span
from jobs.wire.flowviews import PIPELINE_ENDED, PipelineView

_STATES = ("RUNNING", "STOPPING", "FAILED", "CANCELLED", "SUCCEEDED")
OVER = ("SUCCEEDED", "CACHED", "SKIPPED", "FAILED", "CANCELLED")
"""States of steps that are done with."""


def state_words(state: str, glyphs: Glyphs) -> tuple[str, str]:
    """A shape and a word, and their tone; of runs and of their steps."""
    match state:
        case "CACHED":
            return f"{glyphs.cached} cached", "key"
        case "SKIPPED":
            return f"{glyphs.cancelled} skipped", "dim"
        case "WAITING":
            return f"{glyphs.waiting} waiting", "dim"
    return f"{state_glyph(state, glyphs)} {state.lower()}", STATE_TONE[state]


def done(run: PipelineView) -> int:
    """Runs of steps that are done with."""
    return sum(run["counts"].get(state, 0) for state in OVER)


def ran(run: PipelineView, now: float) -> float:
    """Seconds from when it was asked for to its end."""
    begin = moment(run["submitted_at"]) or now
    return (moment(run["ended_at"]) or now) - begin


def number_of(run: PipelineView) -> int:
    return int(run["id"][1:])


def _counted(name: str, tone: str) -> Callable[[PipelineView, float, Glyphs], tuple[str, str]]:
    def cell(run: PipelineView, now: float, glyphs: Glyphs) -> tuple[str, str]:
        held = run["counts"].get(name, 0)
        return (str(held), tone) if held else ("-", "dim")

    return cell


def _told(run: PipelineView, now: float, glyphs: Glyphs) -> tuple[str, str]:
    """What runs; of one that is over, how it ended."""
    if run["state"] in PIPELINE_ENDED:
        return run["reason"], "error" if run["state"] == "FAILED" else "dim"
    return run["reason"] or " ".join(run["running"]) or "waits", ""


COLUMNS: tuple[Column[PipelineView], ...] = (
    Column("id", 5, lambda p, n, g: (p["id"], "strong"), order=number_of),
    Column("state", 11, lambda p, n, g: state_words(p["state"], g),
           order=lambda p: _STATES.index(p["state"])),
    Column("name", 12, lambda p, n, g: (p["name"], ""), grow=2, order=lambda p: natural(p["name"])),
    Column("user", 8, lambda p, n, g: (p["user"], ""), rank=3, order=lambda p: p["user"]),
    Column("done", 7, lambda p, n, g: (f"{done(p)}/{p['counts']['total']}", ""), right=True,
           order=done),
    Column("cached", 6, _counted("CACHED", "key"), rank=2, right=True,
           order=lambda p: p["counts"].get("CACHED", 0)),
    Column("failed", 6, _counted("FAILED", "error"), rank=2, right=True,
           order=lambda p: p["counts"].get("FAILED", 0)),
    Column("ran", 5, lambda p, n, g: (coarse(ran(p, n)), ""), right=True,
           order=lambda p: ran(p, 0.0) if p["ended_at"] else None),
    Column("age", 5, lambda p, n, g: (age(p["submitted_at"], n), "dim"), rank=1, right=True,
           order=lambda p: p["submitted_at"]),
    Column("running", 18, _told, grow=5),
)  # fmt: skip

FIELDS: Mapping[str, Callable[[PipelineView], Any]] = {
    "id": lambda p: p["id"],
    "name": lambda p: p["name"],
    "user": lambda p: p["user"],
    "state": lambda p: p["state"],
    "steps": lambda p: p["counts"]["total"],
    "done": done,
    "cached": lambda p: p["counts"].get("CACHED", 0),
    "failed": lambda p: p["counts"].get("FAILED", 0),
}


def _anywhere(run: PipelineView) -> str:
    params = " ".join(f"{name}={value}" for name, value in run["params"].items())
    parts = (run["id"], run["name"], run["user"], run["state"], run["reason"], params)
    return " ".join((*parts, *run["running"]))


def pipeline_filter(text: str) -> Filter[PipelineView]:
    return parse(text, FIELDS, _anywhere)


def rows(
    runs: Mapping[str, PipelineView], wanted: Filter[PipelineView], order: Order | None = None
) -> list[str]:
    """Ids that match, in an order; by default what is not over first, each newest first."""
    matching = [run for run in runs.values() if wanted.matches(run)]
    matching.sort(key=lambda run: (run["state"] in PIPELINE_ENDED, -number_of(run)))
    return [run["id"] for run in in_order(matching, COLUMNS, order)]


def totals(runs: Mapping[str, PipelineView]) -> Line:
    """How many run; nothing where there are none."""
    if not runs:
        return ()
    live = sum(run["state"] not in PIPELINE_ENDED for run in runs.values())
    return (Span(f"{live} running" if live else "all are over", "ok" if live else "dim"),)
