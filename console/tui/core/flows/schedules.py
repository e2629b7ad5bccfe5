"""Schedules in words: a line each with the next firing, and all of one as a page. Pure."""

from __future__ import annotations

from datetime import datetime

from console.text import neutralise
from console.tui.core.draw.facts import fact, section
from console.tui.core.draw.format import age, coarse, moment
from console.tui.core.draw.glyphs import Glyphs
from console.tui.core.draw.lines import Line, fit, line
from jobs.wire.flowviews import ScheduleView

_TONES = {"STARTED": "ok", "WAITING": "info", "SKIPPED": "warn", "MISSED": "warn"}


def local(text: str, now: float) -> str:
    """A moment to come in local time, with its day unless it is today."""
    at = datetime.fromisoformat(text).astimezone()
    today = datetime.fromtimestamp(now).astimezone().date() == at.date()
    return at.strftime("%H:%M" if today else "%a %d %b %H:%M")


def upcoming(schedule: ScheduleView, now: float) -> str:
    """When it fires next, and in how long."""
    if schedule["state"] == "PAUSED":
        return "paused"
    if not schedule["next"]:
        return "when it happens" if "on" in schedule["schedule"] else "never again"
    at = moment(schedule["next"][0]) or now
    return f"{local(schedule['next'][0], now)}, in {coarse(at - now)}"


def last(schedule: ScheduleView) -> tuple[str, str]:
    """What came of its newest firing, and the tone."""
    if not schedule["firings"]:
        return "has not fired", "dim"
    newest = schedule["firings"][0]
    what = newest["pipeline"] or newest["state"].lower()
    return f"last {what}" + (f": {newest['reason']}" if newest["reason"] else ""), (
        "dim" if newest["state"] == "STARTED" else _TONES[newest["state"]]
    )


def schedule_line(schedule: ScheduleView, now: float, width: int, glyphs: Glyphs) -> Line:
    paused = schedule["state"] == "PAUSED"
    shape, tone = (glyphs.cancelled, "warn") if paused else (glyphs.waiting, "info")
    names = max(12, min(24, width // 5))
    told, told_tone = last(schedule)
    parts: list[tuple[str, str]] = [
        (f" {shape} ", tone),
        (fit(schedule["name"], names, ellipsis=glyphs.ellipsis) + " ", "strong"),
        (fit(upcoming(schedule, now), 27) + " ", "warn" if paused else ""),
    ]
    rest = width - 3 - names - 1 - 28
    if rest >= 40:
        parts.append((fit(schedule["told"], rest // 2 - 1, ellipsis=glyphs.ellipsis) + " ", "dim"))
        rest -= rest // 2
    parts.append((fit(told, rest, ellipsis=glyphs.ellipsis), told_tone))
    return line(*parts)


def detail_lines(schedule: ScheduleView, now: float, width: int, glyphs: Glyphs) -> list[Line]:
    """What it runs and when, the next moments, and what came of the last ones."""
    params = ", ".join(f"{name}={value}" for name, value in schedule["params"].items())
    out = [
        line((neutralise(schedule["name"]), "strong"), f"  {schedule['state'].lower()}"),
        *fact("runs", schedule["pipeline"], width),
        *fact("when", schedule["told"], width),
        *fact("params", params, width),
        *fact("added", f"{age(schedule['added_at'], now)} ago by {schedule['user']}", width),
        *fact("fired", str(schedule["fired"]), width),
    ]
    out += section("Next", [line(f"  {local(at, now)}") for at in schedule["next"]])
    past = [
        line(
            (f"  {local(one['moment'], now):<17} ", ""),
            (f"{one['state'].lower():<8} ", _TONES[one["state"]]),
            (one["pipeline"] or "", "key"),
            (f" {neutralise(one['reason'] or one['cause'] or '')}", "dim"),
        )
        for one in schedule["firings"]
    ]
    return out + section("Firings", past)
