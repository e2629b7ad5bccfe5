"""The list of deployments in words: its columns, its order and its filter. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from console.shadowwords import shadowed
from console.tui.core.base.filter import Filter, parse
from console.tui.core.base.order import Order
from console.tui.core.base.table import Column, in_order
from console.tui.core.cluster.cluster import natural
from console.tui.core.draw.format import age, count, span
from console.tui.core.draw.glyphs import Glyphs
from console.tui.core.draw.lines import Line, Span
from jobs.wire.serviceviews import DeploymentView, RolloutView

OPEN = ("starting", "shadowing", "stepping", "paused")
"""Phases of a rollout that is not over."""


def key_of(view: DeploymentView) -> str:
    return f"{view['name']}@{view['target']}"


def open_rollout(view: DeploymentView) -> RolloutView | None:
    """The rollout that is under way."""
    rollout = view["rollout"]
    return rollout if rollout is not None and rollout["phase"] in OPEN else None


def state(view: DeploymentView) -> str:
    """trouble, the phase of a rollout that is under way, serving, or waiting (nothing serves yet)."""
    if view["problem"]:
        return "trouble"
    if (rollout := open_rollout(view)) is not None:
        return rollout["phase"]
    return "serving" if view["live"] is not None else "waiting"


_STATES = ("trouble", "paused", "stepping", "shadowing", "starting", "waiting", "serving")


def state_words(view: DeploymentView, glyphs: Glyphs) -> tuple[str, str]:
    """A shape and a word, and their tone."""
    word = state(view)
    match word:
        case "trouble":
            return f"{glyphs.warn} {word}", "error"
        case "paused":
            return f"{glyphs.warn} {word}", "warn"
        case "serving":
            return f"{glyphs.running} {word}", "ok"
        case _:
            return f"{glyphs.waiting} {word}", "info"


def milliseconds(seconds: float | None) -> str:
    """A latency in at most six characters: 0.42ms, 12.3ms, 140ms, 2.1s."""
    if seconds is None:
        return "-"
    ms = seconds * 1000
    return span(seconds) if ms >= 999.5 else f"{ms:.0f}ms" if ms >= 99.95 else f"{ms:.3g}ms"


def share(bad: int, seen: int) -> str:
    """Errors of requests, in percent; a dash before the first request."""
    return f"{100 * bad / seen:.3g}%" if seen else "-"


def verdict(view: DeploymentView) -> str:
    """What is wrong; else what was last decided of its replicas or of a rollout, and why."""
    if view["problem"]:
        return view["problem"]
    scaling = view["scaling"]
    if scaling is not None and scaling["blocked"]:
        return f"no room for all replicas: {scaling['blocked']}"
    if scaling is not None and open_rollout(view) is None and scaling["reason"]:
        return f"scaled to {scaling['replicas']}: {scaling['reason']}"
    rollout = view["rollout"]
    if rollout is None:
        return ""
    phase = rollout["phase"]
    said = f"{rollout['version']} {phase.replace('_', ' ')}"
    if phase == "shadowing" and "shadow" in rollout:
        return f"{rollout['version']} is a shadow: {'; '.join(shadowed(rollout['shadow']))}"
    if phase in ("stepping", "paused"):
        said = f"{rollout['version']} at {count(rollout['share'])}%"
        if rollout["steps"]:
            said += f", step {rollout['step'] + 1} of {len(rollout['steps'])}"
    return said + (f": {rollout['reason']}" if rollout["reason"] else "")


def ready(view: DeploymentView) -> tuple[int, int]:
    """Replicas that answer, and those that there should be, of versions that are to serve."""
    wanted = [one for one in view["versions"] if one["state"] != "warm"]
    return sum(one["healthy"] for one in wanted), sum(one["replicas"] for one in wanted)


def _most(view: DeploymentView) -> float | None:
    """The median latency of the version with the most traffic."""
    busiest = max(view["versions"], key=lambda one: one["traffic"], default=None)
    return busiest["p50"] if busiest else None


def _versions(view: DeploymentView, now: float, glyphs: Glyphs) -> tuple[str, str]:
    told = [f"{one['version']} {count(one['traffic'])}%" for one in view["versions"]]
    return ("  ".join(told), "") if told else ("-", "dim")


def _ready(view: DeploymentView, now: float, glyphs: Glyphs) -> tuple[str, str]:
    healthy, wanted = ready(view)
    scaling = view["scaling"]
    if wanted == 0 and scaling is not None and scaling["min"] == 0:
        return f"{healthy}/{wanted}", "dim"
    return f"{healthy}/{wanted}", "ok" if healthy >= wanted > 0 else "warn"


def _errors(view: DeploymentView, now: float, glyphs: Glyphs) -> tuple[str, str]:
    bad, seen = _error_counts(view)
    return share(bad, seen), "error" if bad else "dim"


def _error_counts(view: DeploymentView) -> tuple[int, int]:
    versions = view["versions"]
    return sum(one["errors"] for one in versions), sum(one["requests"] for one in versions)


def _error_share(view: DeploymentView) -> float | None:
    bad, seen = _error_counts(view)
    return bad / seen if seen else None


COLUMNS: tuple[Column[DeploymentView], ...] = (
    Column("service", 12, lambda d, n, g: (d["name"], "strong"), grow=1,
           order=lambda d: natural(d["name"])),
    Column("target", 10, lambda d, n, g: (d["target"], ""), order=lambda d: d["target"]),
    Column("state", 10, lambda d, n, g: state_words(d, g), order=lambda d: _STATES.index(state(d))),
    Column("versions", 18, _versions, grow=3),
    Column("ready", 5, _ready, right=True, order=ready),
    Column("p50", 6, lambda d, n, g: (milliseconds(_most(d)), ""), right=True, order=_most),
    Column("errors", 6, _errors, right=True, order=_error_share),
    Column("age", 5, lambda d, n, g: (age(d["changed_at"], n), "dim"), rank=2, right=True,
           order=lambda d: d["changed_at"]),
    Column("by", 8, lambda d, n, g: (d["user"], "dim"), rank=3, order=lambda d: d["user"]),
    Column("verdict", 30, lambda d, n, g: (verdict(d), "error" if d["problem"] else "dim"), rank=1,
           grow=5),
)  # fmt: skip

FIELDS: Mapping[str, Callable[[DeploymentView], Any]] = {
    "name": lambda d: d["name"],
    "target": lambda d: d["target"],
    "state": state,
    "user": lambda d: d["user"],
    "live": lambda d: d["live"] or "",
    "ready": lambda d: ready(d)[0],
    "errors": lambda d: _error_counts(d)[0],
    "requests": lambda d: _error_counts(d)[1],
}


def _anywhere(view: DeploymentView) -> str:
    versions = " ".join(one["version"] for one in view["versions"])
    parts = (view["name"], view["target"], view["user"], state(view), verdict(view), view["url"])
    return " ".join((*parts, versions))


def deployment_filter(text: str) -> Filter[DeploymentView]:
    return parse(text, FIELDS, _anywhere)


def rows(
    services: Mapping[str, DeploymentView],
    wanted: Filter[DeploymentView],
    order: Order | None = None,
) -> list[str]:
    """Keys that match, in an order; by default by name, production first."""
    matching = [view for view in services.values() if wanted.matches(view)]
    matching.sort(key=lambda view: (natural(view["name"]), view["target"] != "production"))
    return [key_of(view) for view in in_order(matching, COLUMNS, order)]


def totals(services: Mapping[str, DeploymentView]) -> Line:
    """How many have a rollout under way, and how many are in trouble; nothing where there are none."""
    if not services:
        return ()
    troubled = sum(bool(view["problem"]) for view in services.values())
    if troubled:
        return (Span(f"{troubled} in trouble", "error"),)
    rolling = sum(open_rollout(view) is not None for view in services.values())
    return (Span(f"{rolling} rolling out", "info") if rolling else Span("all are steady", "dim"),)
