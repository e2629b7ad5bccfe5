"""The Events screen in words: what is wrong now, and what happened. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from console.tui.core.base.filter import Filter, parse
from console.tui.core.base.order import Order, arranged
from console.tui.core.base.world import World
from console.tui.core.cluster.cluster import WORKING, live, natural
from console.tui.core.draw.format import age, clock, coarse, moment
from console.tui.core.draw.glyphs import Glyphs
from console.tui.core.draw.lines import Line, fit, line
from jobs.wire.views import EventView, JobView

LEVELS = ("all", "warning", "error")
"""From which severity on events are shown."""

LONG_WAIT = 3600.0
"""Seconds in the queue after which a job is pointed out."""

REPEATS = 3
"""Events of one kind about one thing that are folded at least."""

TOGETHER = 600.0
"""Seconds between two of them at most."""

_DIGITS = re.compile(r"\d+")
_TONES = {"info": "info", "warning": "warn", "error": "error"}


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that is wrong now; `kind` and `name` are what it is about."""

    severity: Literal["warning", "error"]
    kind: Literal["node", "job"]
    name: str
    text: str
    topic: str = ""  # set where the text counts on, so that the row stays the same one

    @property
    def key(self) -> str:
        return f"{self.kind} {self.name} {self.topic or self.text}"


def alerts(world: World, now: float) -> list[Alert]:
    """What needs someone's eyes: nodes that take no work, GPUs with errors, jobs that wait long or make no
    progress. Errors first."""
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
            out.append(Alert("warning", "job", job["id"], text, "waits"))
        if job.get("stalled"):
            out.append(Alert("error", "job", job["id"], f"stalled: {job['reason']}", "stalled"))
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


def needle(text: str) -> str:
    """The longest word of a filter that is looked for anywhere: what the control plane looks for in all
    that it has recorded."""
    words = [w for w in text.lower().split() if not w.startswith("!") and not set(w) & set(":<>=")]
    return max(words, key=len, default="")


@dataclass(frozen=True, slots=True)
class Folded:
    """The newest of events that repeat, how many more there are, and when the first was."""

    event: EventView
    more: int = 0
    since: float | None = None


def fold(events: Sequence[EventView], jobs: Mapping[str, JobView]) -> list[Folded]:
    """Events, newest first, with those of one kind about one thing as one line: what the trials of a sweep
    or the restarts of a job repeat. Few of them, or far apart, stay lines of their own."""
    groups: list[list[EventView]] = []
    open_: dict[tuple[str, ...], list[EventView]] = {}
    for event in events:
        held = jobs.get(event["job"] or "")
        about = (held["tags"].get("sweep") if held else "") or event["job"] or event["node"] or ""
        key = (event["kind"], event["severity"], about or _DIGITS.sub("#", event["message"]))
        group, at = open_.get(key), moment(event["at"])
        last = None if group is None else moment(group[-1]["at"])
        if group is not None and last is not None and at is not None and last - at <= TOGETHER:
            group.append(event)
        else:
            open_[key] = group = [event]
            groups.append(group)
    out = [
        folded
        for group in groups
        for folded in (
            [Folded(group[0], len(group) - 1, moment(group[-1]["at"]))]
            if len(group) >= REPEATS
            else map(Folded, group)
        )
    ]
    out.sort(key=lambda folded: -folded.event["id"])
    return out


def folded_row(folded: Folded, now: float, width: int, glyphs: Glyphs) -> Line:
    """An event, and how often it was repeated before."""
    if not folded.more:
        return event_row(folded.event, now, width, glyphs)
    since = f" since {clock(folded.since)}" if folded.since is not None else ""
    told = f" {glyphs.dot} {folded.more} more{since}"
    row = event_row(folded.event, now, width - len(told), glyphs)
    return (*row, *line((told, "key")))


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
