"""What a service's monitor found last, and who holds its keys, for the page of a deployment. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from console.text import neutralise
from console.tui.core.draw.facts import fact, section
from console.tui.core.draw.format import age, many
from console.tui.core.draw.glyphs import Glyphs, block
from console.tui.core.draw.lines import Line, Span, fit, line
from jobs.base.words import duration
from jobs.wire.monitorviews import MonitorRunView, MonitorView
from jobs.wire.serviceviews import KeyView

CALM_SHOWN = 6
"""Features without drift that are shown below those with it."""

FIGURES = 56
"""Cells of a feature's line that are not its name."""

_TONES = {"drift": "error", "ok": "ok", "not enough data": "warn", "reference": "info"}


@dataclass(frozen=True, slots=True)
class Watched:
    """What was read of a service beside what it is.

    Attributes:
        monitor: None where nothing serves, so that there is nothing to monitor.
        run: the newest window that was looked at to its end, with its report; None before the first.
        keys: its API keys, revoked ones too.
        problem: why some of it could not be read.
    """

    monitor: MonitorView | None = None
    run: MonitorRunView | None = None
    keys: Sequence[KeyView] = ()
    problem: str = ""


def last_look(monitor: MonitorView) -> MonitorRunView | None:
    """The newest window that has a result."""
    return next((run for run in monitor["runs"] if run["status"]), None)


def key_words(watched: Watched, *, keyed: bool) -> str:
    """How many keys open it."""
    if not keyed:
        return "none needed"
    held = [key for key in watched.keys if key["revoked_at"] is None]
    revoked = len(watched.keys) - len(held)
    told = many(len(held), "API key")
    return f"{told}, {revoked} revoked" if revoked else told


def monitor_lines(watched: Watched, now: float, width: int, glyphs: Glyphs) -> list[Line]:
    """The last report: which features drift, and by how much."""
    if watched.problem:
        return section("Monitor", fact("", f"not read: {watched.problem}", width, "warn"))
    monitor = watched.monitor
    if monitor is None:
        return []
    every = monitor["every"]
    if every is None and not monitor["runs"]:
        told = f"none; `monitor: 1d` in the service's file, or `qd monitor {monitor['service']}`"
        return section("Monitor", fact("", told, width, "dim"))
    how = "only when asked" if every is None else f"every {duration(every)}"
    reference = monitor["reference"] or "the first window with enough requests"
    body = fact("looks", how, width)
    body += fact("against", f"{reference}, {monitor['reference_rows']:,} rows", width)
    running = [run for run in monitor["runs"] if run["state"] == "RUNNING"]
    if running:
        body += fact("now", f"compares {many(running[0]['requests'], 'request')}", width, "info")
    if (run := watched.run) is None:
        body += fact("last", "no window has been looked at yet", width, "dim")
        return section("Monitor", body)
    body += _last(run, now, width)
    return section("Monitor", body + _features(run["report"], width, glyphs))


def _last(run: MonitorRunView, now: float, width: int) -> list[Line]:
    status = run["status"]
    told = f"{status}, {many(run['requests'], 'request')} of {run['version']}"
    out = fact("last", f"{told}, {age(run['until'], now)} ago", width, _TONES.get(status, ""))
    return out + fact("", run["reason"], width, "dim")


def _features(report: Mapping[str, Any], width: int, glyphs: Glyphs) -> list[Line]:
    features = report.get("features") or []
    if not features:
        return []
    drifting = [one for one in features if one["drift"]]
    calm = [one for one in features if not one["drift"]]
    shown = [*drifting, *calm[:CALM_SHOWN]]
    name = max(10, min(28, width - FIGURES))
    head = f"  {fit('feature', name)} {fit('result', 15)} {'size':>8} {'PSI':>5}  before     after"
    out = [line((head, "dim"))]
    out += [_feature(one, name, width, glyphs) for one in shown]
    if len(shown) < len(features):
        out.append(line((f"  and {len(features) - len(shown)} more without drift", "dim")))
    return out


def _feature(one: Mapping[str, Any], name: int, width: int, glyphs: Glyphs) -> Line:
    told, tone = _result(one)
    size = one["size"]
    unit = "SD" if one["kind"] == "number" else "JS"
    before, after = _bars(one.get("histogram"), glyphs)
    new = ", ".join(f"{item['value']} {item['share']:.0%}" for item in (one.get("new") or [])[:2])
    room = width - name - FIGURES - len(" new: ")
    return (
        Span("  "),
        Span(fit(one["name"], name, ellipsis=glyphs.ellipsis) + " ", "strong" if one["drift"] else ""),
        Span(fit(told, 15) + " ", tone),
        Span(f"{_figure(size, unit):>8} "),
        Span(f"{_figure(one['psi']):>5}  "),
        Span(f"{before:<10} ", "dim"),
        Span(f"{after:<10}", tone if one["drift"] else "dim"),
        *((Span(" new: " + fit(neutralise(new), room, ellipsis=glyphs.ellipsis), "dim"),)
          if new and room > 8 else ()),
    )  # fmt: skip


def _figure(value: float | None, unit: str = "") -> str:
    return "-" if value is None else f"{value:.2f} {unit}".rstrip()


def _result(one: Mapping[str, Any]) -> tuple[str, str]:
    if one["drift"]:
        return "drift", "error"
    return ("not enough data", "warn") if one["p"] is None else ("as before", "dim")


def _bars(histogram: Mapping[str, Any] | None, glyphs: Glyphs) -> tuple[str, str]:
    """Shares before and after, on one scale."""
    if not histogram:
        return "", ""
    sides = [list(histogram[side])[:10] for side in ("before", "after")]
    top = max([*sides[0], *sides[1], 1e-9])
    before, after = (
        "".join(" " if not share else block(share / top * 0.999, glyphs) for share in side)
        for side in sides
    )
    return before, after
