"""Sweeps in words: states, progress, what is left of them, values and parameters. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

from console.tui.core.cluster.cluster import facts_line
from console.tui.core.draw.format import (
    STATE_TONE,
    coarse,
    count,
    many,
    moment,
    number,
    span,
    state_glyph,
)
from console.tui.core.draw.glyphs import Glyphs, block
from console.tui.core.draw.lines import Line, Span, fit, line
from console.tui.core.draw.lines import width as cells
from jobs.wire.sweepviews import SWEEP_ENDED, ObjectiveView, SweepView, TrialView

OPEN = frozenset({"QUEUED", "RUNNING", "STOPPING"})
"""States of trials that are not over."""


def value_text(value: Any) -> str:
    """A parameter's value, as short as it can be read."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return number(float(value)) if isinstance(value, float) else str(value)


def short(value: Any) -> str:
    """A parameter's value for a column: three digits of it, in six characters where it is a number."""
    if isinstance(value, float):
        if value and not 1e-2 <= abs(value) < 1e5:
            mantissa, exponent = f"{value:.1e}".split("e")
            return f"{mantissa}e{int(exponent)}"
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return value_text(value)


def params_text(params: Mapping[str, Any]) -> str:
    """A point in one line: `lr=0.01 width=64`."""
    return " ".join(f"{name}={value_text(value)}" for name, value in params.items())


def better(objective: ObjectiveView, one: float, other: float) -> bool:
    """Whether `one` is the better value."""
    return one > other if objective["goal"] == "maximize" else one < other


def reached(trial: TrialView) -> float | None:
    """A trial's first objective: its own when it is complete, else the newest that it logged."""
    return trial["values"][0] if trial["values"] else trial["last"]


class Quality:
    """How good a value is among those that were seen, from 0 (the worst) to 1 (the best)."""

    def __init__(self, values: Sequence[float], objective: ObjectiveView) -> None:
        self._sorted = sorted(values)
        self._up = objective["goal"] == "maximize"

    def share(self, value: float) -> float:
        """The part of the others that it beats; 1 when there are no others."""
        if len(self._sorted) < 2:
            return 1.0
        below = (bisect_right(self._sorted, value) - 1) / (len(self._sorted) - 1)
        below = max(0.0, min(1.0, below))
        return below if self._up else 1 - below

    def tone(self, value: float) -> str:
        """One of the five steps in which loads are told, the brightest being the best."""
        return f"load{min(4, int(self.share(value) * 5))}"

    def block(self, value: float, glyphs: Glyphs) -> str:
        return block(self.share(value), glyphs)


def elapsed(sweep: SweepView, now: float) -> float:
    """Seconds since it began, to its end."""
    began, ended = moment(sweep["submitted_at"]), moment(sweep["ended_at"])
    return max(0.0, (now if ended is None else ended) - (began or now))


def done(sweep: SweepView) -> int:
    return sweep["counts"]["total"] - sweep["counts"]["open"]


def left(sweep: SweepView, now: float) -> float | None:
    """Seconds until it ends, at the pace so far or by its time budget; None when nothing can be said."""
    if sweep["state"] != "RUNNING":
        return None
    ran, out = elapsed(sweep, now), []
    if sweep["trials"] is not None and done(sweep):
        out.append(ran / done(sweep) * max(0, sweep["trials"] - done(sweep)))
    if sweep["time_budget"] is not None:
        out.append(max(0.0, sweep["time_budget"] - ran))
    return min(out, default=None)


def progress(sweep: SweepView, width: int, glyphs: Glyphs) -> Line:
    """A bar of all trials: complete, pruned, failed, open, and those that are still to come."""
    counts = sweep["counts"]
    whole = max(sweep["trials"] or counts["total"], counts["total"], 1)
    parts = (
        (counts["complete"], glyphs.blocks[-1], "info"),
        (counts["pruned"], glyphs.blocks[3], "dim"),
        (counts["failed"] + counts["cancelled"], glyphs.crossed, "error"),
        (counts["open"], glyphs.blocks[-1], "ok"),
    )
    out: list[Span] = []
    drawn = seen = 0
    for many_, char, its_tone in parts:
        seen += many_
        upto = round(seen / whole * width)
        if upto > drawn:
            out.append(Span(char * (upto - drawn), its_tone))
            drawn = upto
    out.append(Span(glyphs.empty * (width - drawn), "dim"))
    return tuple(out)


def goal_glyph(objective: ObjectiveView, glyphs: Glyphs) -> str:
    return glyphs.up if objective["goal"] == "maximize" else glyphs.down


def summary(
    sweep: SweepView,
    best: TrialView | None,
    front: Sequence[TrialView],
    now: float,
    width: int,
    glyphs: Glyphs,
) -> list[Line]:
    """Three lines: what it is, how far it is, and the best so far (of several objectives, the front)."""
    counts, state = sweep["counts"], sweep["state"]
    what = [
        line(
            (f"{state_glyph(state, glyphs)} {state}", STATE_TONE[state]),
            (f" {sweep['name']}", "strong"),
        )
    ]
    goals = ", ".join(f"{o['metric']} {goal_glyph(o, glyphs)}" for o in sweep["objectives"])
    what.append(line((goals, "key")))
    pruner = "" if sweep["pruner"] == "none" else f" + {sweep['pruner']}"
    what += [line(sweep["sampler"] + pruner), line((f"{sweep['parallel']} at a time", ""))]
    if sweep["gpu_hours"]:
        of = sweep["gpu_hours_budget"]
        limit = f" of {count(of)}" if of else ""
        what.append(line((f"{number(sweep['gpu_hours'])}{limit} GPU h", "")))
    what.append(line(("by " + sweep["user"], "dim")))
    if sweep["reason"]:
        what.append(line((sweep["reason"], "dim" if state != "FAILED" else "error")))
    how = [line((f"{done(sweep)}" + (f"/{sweep['trials']}" if sweep["trials"] else ""), "strong"))]
    for name, its_tone in (("complete", "info"), ("pruned", "dim"), ("failed", "error")):
        if counts[name]:  # type: ignore[literal-required]
            how.append(line((f"{counts[name]} {name}", its_tone)))  # type: ignore[literal-required]
    if counts["cancelled"]:
        how.append(line((f"{counts['cancelled']} cancelled", "dim")))
    if counts["open"]:
        how.append(line((f"{counts['open']} open", "ok")))
    ran = elapsed(sweep, now)
    how.append(line(("ran " if state in SWEEP_ENDED else "for ", "dim"), span(ran)))
    if (rest := left(sweep, now)) is not None:
        how.append(line((f"about {coarse(rest)} left", "")))
    bar = max(10, min(40, width // 4))
    said = facts_line(how, glyphs, width - bar - 2)
    return [
        facts_line(what, glyphs, width),
        (Span(" "), *progress(sweep, bar, glyphs), *said),
        _best_line(best, width, glyphs)
        if len(sweep["objectives"]) == 1
        else _front_line(sweep["objectives"], front, width, glyphs),
    ]


def _front_line(
    objectives: Sequence[ObjectiveView], front: Sequence[TrialView], width: int, glyphs: Glyphs
) -> Line:
    """How many trials none beats, and the best of them for each objective."""
    if not front:
        return line((" no trial is complete yet", "dim"))
    facts = [line(("front ", "dim"), (many(len(front), "trial"), "strong"))]
    for place, objective in enumerate(objectives):
        most = max if objective["goal"] == "maximize" else min
        lead = most(front, key=lambda trial: (trial["values"] or [])[place])
        value = number((lead["values"] or [])[place])
        facts.append(
            line((f"{objective['metric']} ", "dim"), (value, "key"), f" #{lead['number']}")
        )
    return facts_line(facts, glyphs, width)


def _best_line(best: TrialView | None, width: int, glyphs: Glyphs) -> Line:
    if best is None or best["values"] is None:
        return line((" no trial is complete yet", "dim"))
    head = line(
        (" best ", "dim"),
        (number(best["values"][0]), "key"),
        (f" #{best['number']}", "strong"),
        ("  ", ""),
    )
    rest = params_text(best["params"])
    return (*head, Span(fit(rest, width - cells(head), ellipsis=glyphs.ellipsis).rstrip()))
