"""The list of alerts in words: its columns, its order and its filter. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from console.tui.core.base.filter import Filter, parse
from console.tui.core.base.order import Order
from console.tui.core.base.table import Column, in_order
from console.tui.core.cluster.cluster import natural
from console.tui.core.draw.format import age, clock, moment
from console.tui.core.draw.glyphs import Glyphs
from console.tui.core.draw.lines import Line, Span
from jobs.wire.alertviews import AlertView

STATES = ("firing", "pending", "acked", "silenced", "resolved")
"""From what needs somebody to what is over."""
_TONES = {"pending": "info", "acked": "", "silenced": "dim", "resolved": "dim"}
_SEVERITIES = ("error", "warning", "info")
_SEVERE = {"error": "error", "warning": "warn", "info": "info"}


def key_of(alert: AlertView) -> str:
    return f"{alert['rule']} {alert['subject']}"


def state(alert: AlertView) -> str:
    """Its state for people: what is acknowledged or silenced needs nobody now."""
    if alert["state"] == "RESOLVED":
        return "resolved"
    if alert["silence"] is not None:
        return "silenced"
    if alert["acked_by"]:
        return "acked"
    return alert["state"].lower()


def needs_someone(alerts: Iterable[AlertView]) -> int:
    """How many fire, and nobody has acknowledged or silenced them."""
    return sum(state(alert) == "firing" for alert in alerts)


def state_words(alert: AlertView, glyphs: Glyphs) -> tuple[str, str]:
    """A shape and a word, and their tone."""
    word = state(alert)
    shapes = {
        "firing": glyphs.failed if alert["severity"] == "error" else glyphs.warn,
        "pending": glyphs.waiting,
        "acked": glyphs.running,
        "silenced": glyphs.cancelled,
        "resolved": glyphs.ok,
    }
    tone = _SEVERE[alert["severity"]] if word == "firing" else _TONES[word]
    return f"{shapes[word]} {word}", tone


@dataclass(frozen=True, slots=True)
class About:
    """What an alert is about, as the console can open it."""

    kind: Literal["job", "sweep", "pipeline", "node", "screen"]
    name: str


_NAMED: tuple[tuple[str, Literal["job", "sweep", "pipeline", "node"]], ...] = (
    (r"(j[1-9]\d*)(?:\.\d+)?", "job"),
    (r"(s[1-9]\d*)", "sweep"),
    (r"(p[1-9]\d*)", "pipeline"),
    (r"node (\S+)", "node"),
)


def about(alert: AlertView) -> About | None:
    """Where what it is about can be seen; None where there is no such place."""
    subject = alert["subject"]
    for pattern, kind in _NAMED:
        if found := re.fullmatch(pattern, subject):
            return About(kind, found.group(1))
    if subject.startswith("schedule "):
        return About("screen", "pipelines")
    if subject == "the queue":
        return About("screen", "jobs")
    return About("node", alert["node"]) if alert["node"] else None


def held_by(alert: AlertView) -> str:
    """Who looks after it, or has silenced it and until when."""
    if (silence := alert["silence"]) is not None:
        until = moment(silence["until"])
        return f"{silence['user']} to {clock(until) if until is not None else '?'}"
    return alert["acked_by"]


def said(alert: AlertView) -> str:
    """What they said of it."""
    silence = alert["silence"]
    return silence["reason"] if silence is not None else alert["acked_why"]


def _text(alert: AlertView, now: float, glyphs: Glyphs) -> tuple[str, str]:
    why = said(alert)
    tone = "dim" if _tone(alert) == "dim" else ""
    return alert["text"] + (f" {glyphs.dot} {why}" if why else ""), tone


def _tone(alert: AlertView) -> str:
    return "dim" if state(alert) in ("resolved", "silenced") else "strong"


COLUMNS: tuple[Column[AlertView], ...] = (
    Column("state", 10, lambda a, n, g: state_words(a, g),
           order=lambda a: STATES.index(state(a))),
    Column("severity", 8, lambda a, n, g: (a["severity"], _SEVERE[a["severity"]]), rank=3,
           order=lambda a: _SEVERITIES.index(a["severity"])),
    Column("about", 15, lambda a, n, g: (a["subject"], _tone(a)), grow=1,
           order=lambda a: natural(a["subject"])),
    Column("rule", 14, lambda a, n, g: (a["rule"], "dim"), rank=1, grow=1,
           order=lambda a: a["rule"]),
    Column("since", 5, lambda a, n, g: (age(a["since"], n), "dim"), right=True,
           order=lambda a: a["since"]),
    Column("held by", 13, lambda a, n, g: (held_by(a) or "-", "" if held_by(a) else "dim"), rank=2,
           order=lambda a: held_by(a) or None),
    Column("text", 20, _text, grow=8),
)  # fmt: skip

FIELDS: Mapping[str, Callable[[AlertView], Any]] = {
    "state": state,
    "severity": lambda a: a["severity"],
    "rule": lambda a: a["rule"],
    "about": lambda a: a["subject"],
    "node": lambda a: a["node"],
    "by": held_by,
}


def _anywhere(alert: AlertView) -> str:
    parts = (alert["rule"], alert["subject"], alert["text"], alert["node"], state(alert))
    return " ".join((*parts, held_by(alert), said(alert)))


def alert_filter(text: str) -> Filter[AlertView]:
    return parse(text, FIELDS, _anywhere)


def rows(
    alerts: Mapping[str, AlertView], wanted: Filter[AlertView], order: Order | None = None
) -> list[str]:
    """Keys that match, in an order; by default what needs somebody first, the worst and newest of it
    before the rest, and what is over by when it ended."""
    matching = [alert for alert in alerts.values() if wanted.matches(alert)]
    matching.sort(key=_when, reverse=True)
    matching.sort(key=_rank)
    return [key_of(alert) for alert in in_order(matching, COLUMNS, order)]


def _rank(alert: AlertView) -> tuple[int, int]:
    place = STATES.index(state(alert))
    over = alert["state"] == "RESOLVED"
    return place, 0 if over else _SEVERITIES.index(alert["severity"])


def _when(alert: AlertView) -> float:
    text = alert["changed_at"] if alert["state"] == "RESOLVED" else alert["since"]
    return moment(text) or 0.0


def totals(alerts: Mapping[str, AlertView]) -> Line:
    """How many fire, and how many somebody holds; nothing where there are none."""
    if not alerts:
        return ()
    if firing := needs_someone(alerts.values()):
        bad = any(state(a) == "firing" and a["severity"] == "error" for a in alerts.values())
        return (Span(f"{firing} firing", "error" if bad else "warn"),)
    return (Span("nothing needs anybody", "ok"),)
