"""The graph of a run as a tree of lines: each step below the last of those that it needs. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from console.text import neutralise
from console.tui.core.draw.format import coarse, moment
from console.tui.core.draw.glyphs import Glyphs
from console.tui.core.draw.lines import Line, crop, fit, line
from console.tui.core.draw.lines import width as cells
from console.tui.core.flows.list import OVER, state_words
from jobs.flows import graph
from jobs.wire.flowviews import TaskView
from jobs.wire.views import JobView

UNFOLDED = 6
"""Runs of a step that are shown by themselves; more of them are one line until they are unfolded."""

NARROW = 70
"""Cells below which the job of a step has no column of its own."""


LEAST = 14
"""Cells for tree and name at least."""


@dataclass(frozen=True, slots=True)
class Node:
    """One line of the tree: a step, or one run of a step that has several.

    Attributes:
        key: "train" of a step, "train/2" of one of its runs.
        tasks: the runs that the line is about.
        ways: for each level above it and its own, whether more follows there.
        also: what it needs beyond the step it is drawn below.
        within: whether it is one of several runs of a step.
        folded: whether its runs are hidden; None where it has one.
    """

    key: str
    tasks: tuple[TaskView, ...]
    ways: tuple[bool, ...] = ()
    also: tuple[str, ...] = ()
    within: bool = False
    folded: bool | None = None

    @property
    def task(self) -> TaskView | None:
        """The one run that it is about."""
        return self.tasks[0] if len(self.tasks) == 1 else None


def key_of(task: TaskView) -> str:
    return f"{task['step']}/{task['number']}"


def nodes(tasks: Sequence[TaskView], turned: Collection[str]) -> list[Node]:
    """The lines of a run.

    Args:
        tasks: in the order in which they may run.
        turned: steps that are folded though they would not be, or unfolded though they would be folded.
    """
    steps: dict[str, list[TaskView]] = {}
    for task in tasks:
        steps.setdefault(task["step"], []).append(task)
    found: list[Node] = []
    for branch in graph.tree({name: group[0]["needs"] for name, group in steps.items()}):
        group = tuple(steps[branch.name])
        folded = (len(group) > UNFOLDED) != (branch.name in turned) if len(group) > 1 else None
        found.append(Node(branch.name, group, branch.ways, branch.also, folded=folded))
        if folded is False:
            found += [
                Node(key_of(task), (task,), (*branch.ways, task is not group[-1]), within=True)
                for task in group
            ]
    return found


def in_order(table: Mapping[str, TaskView]) -> list[TaskView]:
    """The tasks of a watched run, each after those that it needs."""
    steps: dict[str, list[TaskView]] = {}
    for task in table.values():
        steps.setdefault(task["step"], []).append(task)
    needs = {
        name: [other for other in group[0]["needs"] if other in steps]
        for name, group in steps.items()
    }
    return [
        task
        for name in graph.order(needs)
        for task in sorted(steps[name], key=lambda one: one["number"])
    ]


def name_of(node: Node) -> str:
    if not node.within:
        return node.key
    (task,) = node.tasks
    values = ", ".join(f"{name}={value}" for name, value in task["matrix"].items())
    return f"[{values or task['number']}]"


def ran(tasks: Sequence[TaskView], now: float) -> float | None:
    """Seconds from the first start to the last end; None of what has not run here."""
    here = [one for one in tasks if one["state"] != "CACHED" and one["started_at"]]
    begins = [at for one in here if (at := moment(one["started_at"])) is not None]
    if not begins:
        return None
    return max(moment(one["ended_at"]) or now for one in here) - min(begins)


def waits_for(
    task: TaskView, states: Mapping[str, Sequence[TaskView]], jobs: Mapping[str, JobView]
) -> str:
    """What a step waits for; "" where it does not wait.

    Args:
        states: the runs of each step.
        jobs: those that are known, by id.
    """
    if task["state"] == "RUNNING":
        if task["job_state"] in ("QUEUED", "PLACING"):
            held = jobs.get(task["job"] or "")
            why = held["reason"] if held and held["reason"] else "waits in the queue"
            return f"{task['job']}: {why}"
        return f"waits for {task['reason']}" if task["reason"] else ""
    if task["state"] != "WAITING":
        return ""
    open_ = [
        name
        for name in task["needs"]
        if any(one["state"] not in OVER for one in states.get(name, ()))
    ]
    if not open_:
        return "waits for its turn"
    shown = ", ".join(open_[:3]) + (f" and {len(open_) - 3} more" if len(open_) > 3 else "")
    return f"waits for {shown}"


def told(node: Node, states: Mapping[str, Sequence[TaskView]], jobs: Mapping[str, JobView]) -> str:
    """What a line has to say beyond its state: what it waits for, where it came from, why it failed."""
    parts = [f"also after {', '.join(node.also)}"] if node.also else []
    if (task := node.task) is None:
        bad = next((one["reason"] for one in node.tasks if one["state"] == "FAILED"), "")
        return "; ".join([*parts, bad] if bad else parts)
    if waits := waits_for(task, states, jobs):
        parts.append(waits)
    elif task["state"] == "CACHED":
        parts.append(f"from {task['taken_from']}" if task["taken_from"] else task["reason"])
    elif task["reason"]:
        parts.append(task["reason"])
    elif task["left"]:
        parts.append(", ".join(task["left"].values()))
    return "; ".join(part for part in parts if part)


def place(task: TaskView) -> str:
    """The job or the sweep that it runs as."""
    return task["job"] or task["sweep"] or ""


def _lead(node: Node, glyphs: Glyphs) -> str:
    """The lines of the tree before a name."""
    trunk, fork, corner = ("│ ", "├ ", "└ ") if glyphs.braille else ("| ", "+ ", "` ")
    out = "".join(trunk if more else "  " for more in node.ways[:-1])
    if node.ways:
        out += fork if node.ways[-1] else corner
    if node.folded is not None:
        out += glyphs.crumb + " " if node.folded else glyphs.down + " "
    return out


def _named(node: Node, most: int, glyphs: Glyphs) -> str:
    """Tree and name in `most` cells, where both cannot have them at the cost of the tree's trunk."""
    lead, name = _lead(node, glyphs), neutralise(name_of(node))
    room = max(2, most - cells(line(name)))
    return (lead if len(lead) <= room else glyphs.ellipsis + lead[1 - room :]) + name


def _states(node: Node, glyphs: Glyphs) -> tuple[str, str]:
    """The state of a line; of several runs, how many are over and the one that matters most."""
    if node.task is not None:
        return state_words(node.task["state"], glyphs)
    states = [task["state"] for task in node.tasks]
    worst = next(
        state
        for state in ("FAILED", "RUNNING", "CANCELLED", "WAITING", "SUCCEEDED", "CACHED", "SKIPPED")
        if state in states
    )
    shape, tone = state_words(worst, glyphs)
    over = sum(state in OVER for state in states)
    return f"{shape[0]} {over}/{len(states)}", tone


def room_for(shown: Sequence[Node], width: int, glyphs: Glyphs) -> int:
    """Cells for tree and names in lines of `width` cells."""
    most = _most(width)
    widest = max((cells(line(_named(node, most, glyphs))) for node in shown), default=0)
    return max(LEAST, min(most, widest))


def _most(width: int) -> int:
    return max(LEAST, int(width * 0.42))


def tree_line(
    node: Node,
    states: Mapping[str, Sequence[TaskView]],
    jobs: Mapping[str, JobView],
    now: float,
    width: int,
    room: int,
    glyphs: Glyphs,
) -> Line:
    """Tree and name, state, time, job, kind, and what there is to say.

    Args:
        states: the runs of each step.
        room: cells for tree and name, as `room_for` gives them for all lines.
    """
    name, (said, tone) = _named(node, _most(width), glyphs), _states(node, glyphs)
    time, task = ran(node.tasks, now), node.task
    parts: list[tuple[str, str]] = [
        (" " + fit(name, room, ellipsis=glyphs.ellipsis) + " ", "strong"),
        (fit(said, 11) + " ", tone),
        (fit("-" if time is None else coarse(time), 5, right=True) + " ", "dim"),
    ]
    if width >= NARROW:
        parts.append((fit(place(task) if task else "", 6) + " ", "key"))
    kind = node.tasks[0]["kind"]
    if kind != "job" and not node.within:
        parts.append((f"{kind} ", "dim"))
    used = sum(cells(line(part)) for part in parts)
    what = fit(told(node, states, jobs), width - used, ellipsis=glyphs.ellipsis)
    parts.append((what, "error" if task is not None and task["state"] == "FAILED" else "dim"))
    return crop(line(*parts), 0, width)
