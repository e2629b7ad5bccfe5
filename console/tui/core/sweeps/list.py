"""The list of sweeps in words: its columns, its order and its filter. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from console.tui.core.base.filter import Filter, parse
from console.tui.core.base.order import Order
from console.tui.core.base.table import Column, in_order
from console.tui.core.cluster.cluster import natural
from console.tui.core.draw.format import STATE_TONE, age, coarse, many, number, state_glyph
from console.tui.core.draw.glyphs import Glyphs
from console.tui.core.draw.lines import Line, Span, plain
from console.tui.core.sweeps import words
from jobs.wire.sweepviews import SWEEP_ENDED, SweepView

_STATES = ("RUNNING", "PAUSED", "STOPPING", "FAILED", "FINISHED")


def number_of(sweep: SweepView) -> int:
    return int(sweep["id"][1:])


def _state(sweep: SweepView, now: float, glyphs: Glyphs) -> tuple[str, str]:
    state = sweep["state"]
    return f"{state_glyph(state, glyphs)} {state.lower()}", STATE_TONE[state]


def _done(sweep: SweepView, now: float, glyphs: Glyphs) -> tuple[str, str]:
    of = "" if sweep["trials"] is None else f"/{sweep['trials']}"
    return f"{words.done(sweep)}{of}", ""


def _bar(sweep: SweepView, now: float, glyphs: Glyphs) -> tuple[str, str]:
    return plain(words.progress(sweep, 10, glyphs)), STATE_TONE[sweep["state"]]


def _counted(name: str, tone: str) -> Callable[[SweepView, float, Glyphs], tuple[str, str]]:
    def cell(sweep: SweepView, now: float, glyphs: Glyphs) -> tuple[str, str]:
        held = sweep["counts"][name]  # type: ignore[literal-required]
        return (str(held), tone) if held else ("-", "dim")

    return cell


def _best(sweep: SweepView, now: float, glyphs: Glyphs) -> tuple[str, str]:
    best = sweep["best"]
    return (number(best["values"][0]), "key") if best else ("-", "dim")


def _metric(sweep: SweepView, now: float, glyphs: Glyphs) -> tuple[str, str]:
    goals = [f"{o['metric']}{words.goal_glyph(o, glyphs)}" for o in sweep["objectives"]]
    return " ".join(goals), "dim"


def _left(sweep: SweepView, now: float, glyphs: Glyphs) -> tuple[str, str]:
    rest = words.left(sweep, now)
    return ("-", "dim") if rest is None else (coarse(rest), "")


def _age(sweep: SweepView, now: float, glyphs: Glyphs) -> tuple[str, str]:
    return age(sweep["submitted_at"], now), "dim"


def _how(sweep: SweepView, now: float, glyphs: Glyphs) -> tuple[str, str]:
    pruner = "" if sweep["pruner"] == "none" else f"+{sweep['pruner']}"
    return sweep["sampler"] + pruner, "dim"


COLUMNS: tuple[Column[SweepView], ...] = (
    Column("id", 5, lambda s, n, g: (s["id"], "strong"), order=number_of),
    Column("state", 10, _state, order=lambda s: _STATES.index(s["state"])),
    Column("name", 14, lambda s, n, g: (s["name"], ""), grow=2, order=lambda s: natural(s["name"])),
    Column("user", 8, lambda s, n, g: (s["user"], ""), rank=4, order=lambda s: s["user"]),
    Column("trials", 9, _done, right=True, order=words.done),
    Column("progress", 10, _bar, rank=3),
    Column("open", 4, _counted("open", "ok"), right=True, order=lambda s: s["counts"]["open"]),
    Column(
        "pruned",
        6,
        _counted("pruned", ""),
        rank=1,
        right=True,
        order=lambda s: s["counts"]["pruned"],
    ),
    Column(
        "failed",
        6,
        _counted("failed", "error"),
        rank=2,
        right=True,
        order=lambda s: s["counts"]["failed"],
    ),
    Column("best", 8, _best, right=True, order=lambda s: s["best"]["values"][0] if s["best"] else None),
    Column("objective", 10, _metric, rank=1, grow=1),
    Column("left", 5, _left, right=True),
    Column("age", 5, _age, rank=2, right=True, order=lambda s: s["submitted_at"]),
    Column("by", 11, _how, rank=5),
    Column("reason", 12, lambda s, n, g: (s["reason"], "dim"), rank=6, grow=3),
)  # fmt: skip

FIELDS: Mapping[str, Callable[[SweepView], Any]] = {
    "id": lambda s: s["id"],
    "name": lambda s: s["name"],
    "user": lambda s: s["user"],
    "state": lambda s: s["state"],
    "trials": lambda s: s["counts"]["total"],
    "open": lambda s: s["counts"]["open"],
    "pruned": lambda s: s["counts"]["pruned"],
    "failed": lambda s: s["counts"]["failed"],
    "sampler": lambda s: s["sampler"],
    "pruner": lambda s: s["pruner"],
    "best": lambda s: s["best"]["values"][0] if s["best"] else None,
}


def _anywhere(sweep: SweepView) -> str:
    metrics = " ".join(objective["metric"] for objective in sweep["objectives"])
    parts = (sweep["id"], sweep["name"], sweep["user"], sweep["state"], sweep["reason"], metrics)
    return " ".join((*parts, sweep["sampler"], sweep["pruner"]))


def sweep_filter(text: str) -> Filter[SweepView]:
    return parse(text, FIELDS, _anywhere)


def rows(
    sweeps: Mapping[str, SweepView], wanted: Filter[SweepView], order: Order | None = None
) -> list[str]:
    """Ids that match, in an order; by default what is not over first, each newest first."""
    matching = [sweep for sweep in sweeps.values() if wanted.matches(sweep)]
    matching.sort(key=lambda sweep: (sweep["state"] in SWEEP_ENDED, -number_of(sweep)))
    return [sweep["id"] for sweep in in_order(matching, COLUMNS, order)]


def totals(sweeps: Mapping[str, SweepView]) -> Line:
    """How many run, and how many trials they have open; nothing where there are none."""
    if not sweeps:
        return ()
    live = [sweep for sweep in sweeps.values() if sweep["state"] not in SWEEP_ENDED]
    trials = sum(sweep["counts"]["open"] for sweep in live)
    told = f"{len(live)} live, {many(trials, 'trial')} open" if live else "all are over"
    return (Span(told, "ok" if live else "dim"),)
