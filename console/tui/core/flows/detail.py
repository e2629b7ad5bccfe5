"""One run in words: its head, and all that is known of the step under the cursor. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from console.text import neutralise
from console.tui.core.draw.facts import fact
from console.tui.core.draw.format import clock, coarse, many, moment
from console.tui.core.draw.glyphs import Glyphs
from console.tui.core.draw.lines import Line, Span, fit, line
from console.tui.core.flows.list import done, ran, state_words
from console.tui.core.flows.tree import Node, name_of, waits_for
from console.tui.core.flows.tree import ran as step_ran
from jobs.wire.flowviews import PipelineView, TaskView
from jobs.wire.views import JobView

_BAR = 20


def head_lines(run: PipelineView, now: float, width: int, glyphs: Glyphs) -> list[Line]:
    """What it is and how long, how far it is, and why it is as it is."""
    said, tone = state_words(run["state"], glyphs)
    dot = f" {glyphs.dot} "
    at = moment(run["submitted_at"])
    facts = [
        run["user"],
        f"since {clock(at)}" if at is not None else "",
        coarse(ran(run, now)),
    ]
    params = ", ".join(f"{name}={value}" for name, value in run["params"].items())
    first = line(
        " ",
        (run["id"], "strong"),
        f" {neutralise(run['name'])}  ",
        (said, tone),
        (dot + dot.join(neutralise(one) for one in facts if one), "dim"),
    )
    counts = run["counts"]
    spans = [*_bar(run, glyphs), Span(f"  {done(run)} of {many(counts['total'], 'step')} done")]
    for state, word, tone in (
        ("CACHED", "cached", "key"),
        ("RUNNING", "running", "ok"),
        ("FAILED", "failed", "error"),
        ("SKIPPED", "skipped", "dim"),
    ):
        if held := counts.get(state, 0):
            spans += [Span(dot, "dim"), Span(f"{held} {word}", tone)]
    last = run["reason"] or params
    tone = "error" if run["state"] == "FAILED" and run["reason"] else "dim"
    third = line((" " + fit(last, width - 2, ellipsis=glyphs.ellipsis), tone))
    return [first, tuple(spans), third]


def _bar(run: PipelineView, glyphs: Glyphs) -> list[Span]:
    """How far it is: what is done with, what runs, and what is left."""
    total = max(1, run["counts"]["total"])
    ended = done(run) * _BAR // total
    running = min(_BAR - ended, -(-run["counts"].get("RUNNING", 0) * _BAR // total))
    full = glyphs.blocks[-1]
    left = _BAR - ended - running
    return [
        Span(" "),
        Span(full * ended, "error" if run["counts"].get("FAILED") else "ok"),
        Span(glyphs.blocks[3] * running, "info"),
        Span(glyphs.empty * left, "faint"),
    ]


def step_lines(
    node: Node,
    states: Mapping[str, Sequence[TaskView]],
    jobs: Mapping[str, JobView],
    now: float,
    width: int,
    glyphs: Glyphs,
) -> list[Line]:
    """All that is known of a step, or of one run of it."""
    first = node.tasks[0]
    out: list[Line] = []
    if (task := node.task) is not None:
        said, tone = state_words(task["state"], glyphs)
        name = first["step"] + (f" {name_of(node)}" if node.within else "")
        out.append(line(" ", (neutralise(name), "strong"), f" {task['kind']}  ", (said, tone)))
        out += fact("waits", waits_for(task, states, jobs).removeprefix("waits for "), width)
        if not waits_for(task, states, jobs):
            bad = "error" if task["state"] == "FAILED" else ""
            out += fact("reason", task["reason"], width, bad)
        out += fact("job", _job(task, jobs), width, "key")
        out += fact("sweep", task["sweep"] or "", width, "key")
        out += fact("taken from", task["taken_from"] or "", width, "key")
        out += fact("leaves", ", ".join(f"{k} {v}" for k, v in task["left"].items()), width)
        out += fact("tries", str(task["tries"]) if task["tries"] > 1 else "", width)
    else:
        out.append(line(" ", (neutralise(node.key), "strong"), f" {many(len(node.tasks), 'run')}"))
        for state in dict.fromkeys(one["state"] for one in node.tasks):
            said, tone = state_words(state, glyphs)
            held = sum(one["state"] == state for one in node.tasks)
            out.append(line((f"  {held:>4} ", "strong"), (said, tone)))
        sign = "l shows them" if node.folded else "h hides them"
        out.append(line((f"  {sign}", "dim")))
    begin = min((at for one in node.tasks if (at := moment(one["started_at"]))), default=None)
    time = step_ran(node.tasks, now)
    if time is not None and begin is not None:
        out += fact("ran", f"{coarse(time)}, from {clock(begin, seconds=True)}", width)
    out += fact("needs", _needs(first, states), width)
    return out


def _job(task: TaskView, jobs: Mapping[str, JobView]) -> str:
    held = jobs.get(task["job"] or "")
    if held is None:
        return task["job"] or ""
    where = f" on {', '.join(held['placed_on'][:4])}" if held["placed_on"] else ""
    return f"{held['id']} {held['state'].lower()}{where}"


def _needs(task: TaskView, states: Mapping[str, Sequence[TaskView]]) -> str:
    told = []
    for name in task["needs"]:
        found = dict.fromkeys(one["state"].lower() for one in states.get(name, ()))
        told.append(f"{name} ({', '.join(found)})" if found else name)
    return ", ".join(told)
