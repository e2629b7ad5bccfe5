"""A sweep's trials as a table: columns that follow from the search space, a leaderboard, a filter. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from console.tui.core.base.filter import Filter, parse
from console.tui.core.base.order import Order
from console.tui.core.base.table import Column, in_order
from console.tui.core.draw.format import STATE_TONE, moment, number, span, state_glyph
from console.tui.core.draw.glyphs import Glyphs
from console.tui.core.sweeps import words
from console.tui.core.sweeps.words import Quality
from jobs.wire.sweepviews import ObjectiveView, TrialView

_WIDEST = 10
"""Cells of a parameter's column at most; longer names and values are cut, and the cut is shown."""

_STANDING = {
    "RUNNING": 0,
    "STOPPING": 0,
    "COMPLETE": 1,
    "PRUNED": 2,
    "FAILED": 3,
    "CANCELLED": 4,
    "QUEUED": 5,
}
"""The leaderboard: what runs, then what is complete, the best first."""


def columns(
    params: Sequence[str],
    objectives: Sequence[ObjectiveView],
    quality: Quality,
    shares: Mapping[str, float],
    *,
    lineage: bool = False,
) -> tuple[Column[TrialView], ...]:
    """The table's columns.

    Args:
        params: names of the parameters, in the order of the columns.
        quality: of the first objective, for its colours.
        shares: importance of the parameters: what matters least is dropped first where the width is
            short. The order does not follow it, or columns would change places while one reads.
        lineage: whether trials come from each other, so that their origin matters.
    """

    def value(trial: TrialView, now: float, glyphs: Glyphs) -> tuple[str, str]:
        held = words.reached(trial)
        if held is None:
            return "-", "dim"
        if trial["state"] in ("PRUNED", "FAILED", "CANCELLED"):
            return number(held) + " ", "dim"
        return number(held) + quality.block(held, glyphs), quality.tone(held)

    first = objectives[0]
    out: list[Column[TrialView]] = [
        Column("#", 5, _name, right=True, order=lambda t: t["number"]),
        Column("state", 10, _state, order=lambda t: _STANDING[t["state"]]),
        Column(_cut(first["metric"]), 8, value, right=True, order=words.reached),
    ]
    for place, objective in enumerate(objectives[1:], 1):
        cell, order = _other_value(place)
        out.append(Column(_cut(objective["metric"]), 8, cell, rank=1, right=True, order=order))
    out.append(Column("step", 5, _step, rank=2, right=True, order=lambda t: t["step"]))
    ranked = sorted(params, key=lambda name: -shares.get(name, 0.0))
    for name in params:
        cell, order = _param(name)
        wide = max(6, min(_WIDEST, len(name)))
        rank = 3 + ranked.index(name)
        out.append(Column(_cut(name), wide, cell, rank=rank, right=True, order=order))
    last = 4 + len(params)
    out += [
        Column("ran", 5, _ran, rank=1, right=True, order=lambda t: t["started_at"]),
        Column("job", 6, lambda t, n, g: (t["job"], "dim"), rank=last, order=lambda t: t["number"]),
        Column("on", 8, lambda t, n, g: (", ".join(t["nodes"]), "dim"), rank=last + 2),
        Column("from", 13, _from, rank=1 if lineage else last + 3, order=lambda t: t["parent"]),
        Column("reason", 12, _reason, rank=last + 1, grow=1),
    ]
    return tuple(out)


def _cut(name: str) -> str:
    return name if len(name) <= _WIDEST else name[: _WIDEST - 1] + "…"


def _name(trial: TrialView, now: float, glyphs: Glyphs) -> tuple[str, str]:
    return f"{'*' if trial['pinned'] else ''}{trial['number']}", "strong"


def _state(trial: TrialView, now: float, glyphs: Glyphs) -> tuple[str, str]:
    state = trial["state"]
    return f"{state_glyph(state, glyphs)} {state.lower()}", STATE_TONE[state]


def _step(trial: TrialView, now: float, glyphs: Glyphs) -> tuple[str, str]:
    return ("-" if trial["step"] is None else str(trial["step"])), "dim"


def _ran(trial: TrialView, now: float, glyphs: Glyphs) -> tuple[str, str]:
    began, ended = moment(trial["started_at"]), moment(trial["ended_at"])
    return (
        ("-", "dim") if began is None else (span((now if ended is None else ended) - began), "dim")
    )


def _from(trial: TrialView, now: float, glyphs: Glyphs) -> tuple[str, str]:
    parent = "" if trial["parent"] is None else f" #{trial['parent']}"
    return ("", "dim") if trial["origin"] == "drawn" else (trial["origin"] + parent, "dim")


def _reason(trial: TrialView, now: float, glyphs: Glyphs) -> tuple[str, str]:
    lost = f"lost {trial['losses']} times " if trial["losses"] else ""
    unmet = "not feasible " if trial["feasible"] is False else ""
    return lost + unmet + trial["reason"], "warn" if trial["state"] == "FAILED" else "dim"


Cell = Callable[[TrialView, float, Glyphs], tuple[str, str]]


def _other_value(place: int) -> tuple[Cell, Callable[[TrialView], Any]]:
    def held(trial: TrialView) -> float | None:
        values = trial["values"]
        return values[place] if values and len(values) > place else None

    return lambda t, n, g: (number(held(t)), "" if held(t) is not None else "dim"), held


def _param(name: str) -> tuple[Cell, Callable[[TrialView], Any]]:
    def cell(trial: TrialView, now: float, glyphs: Glyphs) -> tuple[str, str]:
        if name not in trial["params"]:
            return "", ""
        quiet = trial["state"] in ("PRUNED", "FAILED", "CANCELLED", "QUEUED")
        return words.short(trial["params"][name]), "dim" if quiet else ""

    def order(trial: TrialView) -> Any:
        value = trial["params"].get(name)
        # Numbers before words: a column may hold both, and None where the parameter does not exist.
        return None if value is None else (isinstance(value, str), value)

    return cell, order


_FIELDS: Mapping[str, Callable[[TrialView], Any]] = {
    "state": lambda t: t["state"],
    "trial": lambda t: t["number"],
    "value": words.reached,
    "step": lambda t: t["step"],
    "job": lambda t: t["job"],
    "on": lambda t: " ".join(t["nodes"]),
    "from": lambda t: t["origin"],
}


def trial_filter(
    text: str, params: Sequence[str], objectives: Sequence[ObjectiveView]
) -> Filter[TrialView]:
    """A filter from what was typed; each parameter and objective is a field, by its name in small letters."""

    def of(name: str) -> Callable[[TrialView], Any]:
        def value(trial: TrialView) -> Any:
            held = trial["params"].get(name)
            return held if isinstance(held, int | float) else words.value_text(held)

        return value

    fields = {**{name.lower(): of(name) for name in params}, **_FIELDS}
    for place, objective in enumerate(objectives):
        _, other = _other_value(place)
        fields.setdefault(objective["metric"].lower(), other if place else words.reached)
    return parse(text, fields, _anywhere)


def _anywhere(trial: TrialView) -> str:
    where = " ".join(trial["nodes"])
    params = words.params_text(trial["params"])
    return f"#{trial['number']} {trial['state']} {trial['job']} {where} {params} {trial['reason']}"


def rows(
    trials: Sequence[TrialView],
    wanted: Callable[[TrialView], bool],
    objectives: Sequence[ObjectiveView],
    table: Sequence[Column[TrialView]],
    order: Order,
) -> list[str]:
    """Numbers of the trials that match, as keys; by default as a leaderboard."""
    matching = [trial for trial in trials if wanted(trial)]
    sign = -1.0 if objectives[0]["goal"] == "maximize" else 1.0

    def standing(trial: TrialView) -> tuple[int, float, int]:
        value = words.reached(trial)
        place = _STANDING[trial["state"]]
        if place == 0 or value is None:  # what runs keeps its place while its value moves
            return place, float("inf"), trial["number"]
        return place, sign * value, trial["number"]

    matching.sort(key=standing)
    return [str(trial["number"]) for trial in in_order(matching, table, order)]


def best(trials: Sequence[TrialView], objective: ObjectiveView) -> TrialView | None:
    """The complete trial with the best value of the first objective, the earliest among equals; a trial
    that does not meet the constraints does not count."""
    found: TrialView | None = None
    for trial in trials:
        if trial["state"] != "COMPLETE" or not trial["values"] or trial["feasible"] is False:
            continue
        if found is None or words.better(
            objective, trial["values"][0], (found["values"] or [0])[0]
        ):
            found = trial
    return found
