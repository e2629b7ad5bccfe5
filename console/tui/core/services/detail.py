"""Everything about a deployment, as a page. Pure."""

from __future__ import annotations

from console.scalewords import scaled
from console.shadowwords import shadowed
from console.text import neutralise
from console.tui.core.draw.facts import fact, section
from console.tui.core.draw.format import age, count
from console.tui.core.draw.glyphs import Glyphs
from console.tui.core.draw.lines import Line, fit, line
from console.tui.core.services.list import milliseconds, open_rollout, share, state_words
from console.tui.core.services.monitor import Watched, key_words, monitor_lines
from jobs.wire.monitorviews import OnlineView
from jobs.wire.serviceviews import ComparedView, DeploymentView, RolloutView


def detail_lines(
    view: DeploymentView, watched: Watched, now: float, width: int, glyphs: Glyphs
) -> list[Line]:
    """Where it answers, its versions one below another, its rollout with the evidence, and what its
    monitor found."""
    said, tone = state_words(view, glyphs)
    out = [
        line((neutralise(view["name"]), "strong"), f" at {view['target']}", "  ", (said, tone)),
        *fact("problem", view["problem"], width, "error"),
        *fact("url", view["url"], width, "key"),
        *fact("live", view["live"] or "no version serves yet", width),
        *fact("keys", key_words(watched, keyed=view["keyed"]), width),
        *_scaling(view, width),
        *fact("changed", f"{age(view['changed_at'], now)} ago, deployed by {view['user']}", width),
    ]
    if not view["settled"]:
        out += fact("front", "it has not said yet that it does what is decided", width, "warn")
    out += section("Versions", _versions(view, width, glyphs))
    if view["rollout"] is not None:
        under_way = open_rollout(view) is not None
        title = "Rollout" if under_way else "Last rollout"
        out += section(title, _rollout(view["rollout"], now, width, under_way=under_way))
    return out + monitor_lines(watched, now, width, glyphs)


def _scaling(view: DeploymentView, width: int) -> list[Line]:
    scaling = view["scaling"]
    if scaling is None:
        return []
    aim = f"{count(scaling['concurrency'])} requests in progress for each"
    if scaling["latency"] is not None:
        aim += f", p95 {milliseconds(scaling['latency'])}"
    tone = "warn" if scaling["blocked"] else ""
    return [*fact("scaling", scaled(scaling), width, tone), *fact("aims for", aim, width)]


_HEADS = ("traffic", "ready", "errors", "p50", "p99", "p95", "requests")
_NARROW = 84
"""Cells below which a version's last two figures are left out."""


def _versions(view: DeploymentView, width: int, glyphs: Glyphs) -> list[Line]:
    if not view["versions"]:
        return []
    cells, shown = (7, _HEADS[:-2]) if width < _NARROW else (8, _HEADS)
    names = max(10, min(30, width - 11 - len(shown) * (cells + 1)))
    head = "".join(f" {name:>{cells}}" for name in shown)
    out = [line((f"  {fit('version', names)} {'state':<8}{head}", "dim"))]
    for one in view["versions"]:
        figures = (
            f"{count(one['traffic'])}%",
            f"{one['healthy']}/{one['replicas']}",
            share(one["errors"], one["requests"]),
            milliseconds(one["p50"]),
            milliseconds(one["p99"]),
            milliseconds(one["p95"]),
            str(one["requests"]),
        )
        name = fit(one["version"], names, ellipsis=glyphs.ellipsis)
        told = "".join(f" {figure:>{cells}}" for figure in figures[: len(shown)])
        out.append(line(("  ", ""), (name, "strong"), f" {fit(one['state'], 8)}{told}"))
        out += fact("jobs", " ".join(one["jobs"]), width, "dim")
        if (online := one.get("online")) is not None:
            out += fact("feedback", _right(online), width)
    return out


def _right(online: OnlineView) -> str:
    """How right its answers were, as far as the truth is known."""
    answers = f"of {online['truths']} answers"
    if (found := online["accuracy"]) is not None:
        return f"{found['value']:.1%} {answers} right ({found['low']:.1%} to {found['high']:.1%})"
    error = online["error"]
    if error is None:
        return ""
    return f"off by {error['value']:.3g} on average {answers} ({error['low']:.3g} to {error['high']:.3g})"


def _rollout(rollout: RolloutView, now: float, width: int, *, under_way: bool) -> list[Line]:
    phase = rollout["phase"].replace("_", " ")
    before = f" after {rollout['before']}" if rollout["before"] else ""
    out = fact("version", f"{rollout['version']}{before}", width)
    out += fact("phase", f"{phase} for {age(rollout['since'], now)}" if under_way else
                f"{phase}, {age(rollout['since'], now)} ago", width)  # fmt: skip
    out += fact("verdict", rollout["reason"], width, "strong")
    if rollout["steps"]:
        steps = ", ".join(f"{count(step)}%" for step in rollout["steps"])
        at = f"; now step {rollout['step'] + 1}, {count(rollout['share'])}%" if under_way else ""
        at = "; first a shadow" if rollout["phase"] == "shadowing" else at
        out += fact("steps", steps + at, width)
    if under_way:
        out += fact("requests", f"{rollout['seen']} of {rollout['least']} for this step", width)
    out += fact("errors", _compared(rollout["errors"]), width)
    if rollout["edge"] is not None:
        slow = f"over {milliseconds(rollout['edge'])}: {_compared(rollout['slow'])}"
        out += fact("slow", slow, width)
    if (shadow := rollout.get("shadow")) is not None:
        for text in shadowed(shadow):
            out += fact("shadow", text, width)
    wrong = rollout.get("wrong")
    if wrong is not None and wrong["new_seen"]:
        off = "" if rollout["far"] is None else f"off by more than {rollout['far']:.3g}: "
        out += fact("wrong", f"{off}{_compared(wrong)}", width)
    return out


def _compared(held: ComparedView) -> str:
    if not held["new_seen"]:
        return "no requests were compared"
    return (
        f"{held['new_bad']} of {held['new_seen']} ({share(held['new_bad'], held['new_seen'])}) "
        f"against {held['old_bad']} of {held['old_seen']} "
        f"({share(held['old_bad'], held['old_seen'])}); "
        f"e-value {held['e_value']:.3g}, rolled back at {held['limit']:.3g}"
    )
