"""The Events screen in words: what is wrong now, and what happened. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from console.tui.core.cluster import WORKING, live, natural
from console.tui.core.filter import Filter, parse
from console.tui.core.format import age, clock, coarse, moment
from console.tui.core.glyphs import Glyphs
from console.tui.core.lines import Line, fit, line
from console.tui.core.order import Order, arranged
from console.tui.core.world import World
from jobs.views import EventView

LEVELS = ("all", "warning", "error")
"""From which severity on events are shown."""

LONG_WAIT = 3600.0
"""Seconds in the queue after which a job is pointed out."""

_TONES = {"info": "info", "warning": "warn", "error": "error"}


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that is wrong now; `kind` and `name` are what it is about."""

    severity: Literal["warning", "error"]
    kind: Literal["node", "job"]
    name: str
    text: str

    @property
    def key(self) -> str:
        return f"{self.kind} {self.name} {self.text}"


def alerts(world: World, now: float) -> list[Alert]:
    """What needs someone's eyes: nodes that take no work, GPUs with errors, jobs that wait long. Errors
    first."""
    out: list[Alert] = []
    for node in sorted(world.nodes.values(), key=lambda node: natural(node["name"])):
        name, state = node["name"], node["state"]
        if state not in WORKING:
            bad = state in ("LOST", "QUARANTINED")
            why = f": {node['reason']}" if node["reason"] else ""
            out.append(Alert("error" if bad else "warning", "node", name, f"{state.lower()}{why}"))
        for gpu in node["gpus"]:
            if gpu["ecc_errors"]:
                text = f"GPU {gpu['index']} has {gpu['ecc_errors']} uncorrected ECC errors"
                out.append(Alert("error", "node", name, text))
            if gpu["throttle"]:
                text = f"GPU {gpu['index']} is throttled: {', '.join(gpu['throttle'])}"
                out.append(Alert("warning", "node", name, text))
    for job in sorted(live(world.jobs), key=lambda job: natural(job["id"])):
        since = moment(job["submitted_at"])
        if job["state"] == "QUEUED" and since is not None and now - since > LONG_WAIT:
            why = f": {job['reason']}" if job["reason"] else ""
            text = f"waits for {coarse(now - since)}{why}"
            out.append(Alert("warning", "job", job["id"], text))
    out.sort(key=lambda alert: alert.severity != "error")
    return out


def alert_line(alert: Alert, width: int, glyphs: Glyphs) -> Line:
    shape = glyphs.failed if alert.severity == "error" else glyphs.warn
    return line(
        (f" {shape} ", _TONES[alert.severity]),
        (fit(alert.name, 12, ellipsis=glyphs.ellipsis) + " ", "strong"),
        fit(alert.text, width - 17, ellipsis=glyphs.ellipsis),
    )


FIELDS = {
    "job": lambda event: event["job"] or "",
    "node": lambda event: event["node"] or "",
    "user": lambda event: event["user"] or "",
    "kind": lambda event: event["kind"],
    "level": lambda event: event["severity"],
}


def event_filter(text: str) -> Filter[EventView]:
    return parse(text, FIELDS, _anywhere)


def _anywhere(event: EventView) -> str:
    parts = (event["job"], event["node"], event["user"], event["kind"], event["message"])
    return " ".join(part for part in parts if part)


_SORTS: dict[str, Callable[[EventView], Any]] = {
    "level": lambda event: LEVELS.index(event["severity"]) if event["severity"] in LEVELS else 0,
    "about": lambda event: natural(event["job"] or event["node"] or "") or None,
    "kind": lambda event: event["kind"],
}

SORTABLE = tuple(_SORTS)
"""What events can be sorted by, beside their age."""


def chosen(
    events: Sequence[EventView], wanted: Filter[EventView], level: str, order: Order | None = None
) -> list[EventView]:
    """Events that match, newest first, or in an order of one's own."""
    least = LEVELS.index(level)
    found = [
        event
        for event in reversed(events)
        if wanted.matches(event)
        and (
            least == 0 or (event["severity"] in LEVELS and LEVELS.index(event["severity"]) >= least)
        )
    ]
    if order is not None and order.column:
        return arranged(found, _SORTS[order.column], descending=order.descending)
    return found


def event_row(event: EventView, now: float, width: int, glyphs: Glyphs) -> Line:
    """When, how bad, about what, by whom, and what."""
    at = moment(event["at"])
    shape = {"warning": glyphs.warn, "error": glyphs.failed}.get(event["severity"], glyphs.dot)
    wide = width >= 100
    who = fit(event["user"] or "", 9, ellipsis=glyphs.ellipsis) if wide else ""
    kind = fit(event["kind"], 16, ellipsis=glyphs.ellipsis) + " " if wide else ""
    about = fit(event["job"] or event["node"] or "", 8, ellipsis=glyphs.ellipsis)
    used = 1 + 8 + 1 + 5 + 3 + 9 + len(who) + len(kind)
    return line(
        (f" {clock(at, seconds=True) if at is not None else '--:--:--'} ", "dim"),
        (fit(age(event["at"], now), 5, right=True) + " ", "dim"),
        (shape + " ", _TONES.get(event["severity"], "")),
        (about + " ", "strong"),
        (kind, "dim"),
        (who, "dim"),
        fit(event["message"], width - used, ellipsis=glyphs.ellipsis),
    )
