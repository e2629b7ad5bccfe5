"""The course of a pipeline: which steps start, which are skipped, and when it is over. Pure.

Level-triggered: `decide` looks at what is so and says what is to be done about it; doing it once or
again from what was stored leads to the same.

A step waits until those that it needs are over. Then it runs; unless one of them has failed or was
skipped, which skips it too. `always` runs however they ended, `on_failure` only when something that it
needs, directly or not, has failed. What a selection leaves out (`--only`, `--from`) counts as done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from jobs.base.words import counted, listed
from jobs.flows import graph
from jobs.spec.command import Scalar

if TYPE_CHECKING:
    from jobs.flows.spec import PipelineSpec, Step

TaskState = Literal["WAITING", "RUNNING", "SUCCEEDED", "CACHED", "FAILED", "SKIPPED", "CANCELLED"]
RunState = Literal["RUNNING", "STOPPING", "SUCCEEDED", "FAILED", "CANCELLED"]
OPEN: frozenset[str] = frozenset({"WAITING", "RUNNING"})
BAD: frozenset[str] = frozenset({"FAILED", "CANCELLED"})
ENDED: frozenset[str] = frozenset({"SUCCEEDED", "FAILED", "CANCELLED"})
"""The states of a run that is over."""

TaskId = tuple[str, int]
"""A step, and which run of its matrix."""


@dataclass(frozen=True, slots=True)
class Task:
    """One run of a step. `tries` is how often it was started."""

    step: str
    number: int
    state: TaskState = "WAITING"
    reason: str = ""
    tries: int = 0
    left_out: bool = False

    @property
    def id(self) -> TaskId:
        return self.step, self.number


Tasks = Mapping[str, Sequence[Task]]
"""By step, in the order of the matrix."""


@dataclass(frozen=True, slots=True)
class Run:
    """`started_at` is unix time. `ending` is what STOPPING leads to."""

    state: RunState
    started_at: float
    reason: str = ""
    ending: RunState | None = None


@dataclass(slots=True)
class Decision:
    """What is to be done.

    Args:
        start: tasks whose steps may run now: their `when` is still to be looked at.
        skip: tasks that will not run, each with why.
        stop: whether what runs is to be cancelled.
        within: seconds until time alone changes something.
    """

    state: RunState
    reason: str
    ending: RunState | None = None
    start: list[TaskId] = field(default_factory=list)
    skip: list[tuple[TaskId, str]] = field(default_factory=list)
    cancel: list[TaskId] = field(default_factory=list)
    stop: bool = False
    within: float | None = None


def decide(spec: PipelineSpec, run: Run, tasks: Tasks, now: float, limit: int = 10_000) -> Decision:
    """What is next for a run that is not over.

    Args:
        limit: how many tasks may start.
    """
    if run.state == "RUNNING" and spec.timeout is not None:
        left = run.started_at + spec.timeout - now
        if left <= 0:
            told = f"ran longer than its timeout of {spec.timeout:g} s"
            run = Run("STOPPING", run.started_at, told, "FAILED")
    else:
        left = None
    if run.state == "STOPPING":
        return _stopping(run, tasks)
    decision = Decision("RUNNING", run.reason, within=left)
    standings = {name: _standing(group) for name, group in tasks.items()}
    room = spec.parallel - sum(
        task.state == "RUNNING" for group in tasks.values() for task in group
    )
    room = min(room, limit)
    for name, step in spec.steps.items():
        if standings[name] != "open":
            continue
        waiting = [task for task in tasks[name] if task.state == "WAITING"]
        verdict = _ready(spec, name, step, standings)
        if verdict is None or not waiting:
            continue
        if verdict:
            decision.skip += [(task.id, verdict) for task in waiting]
            continue
        running = sum(task.state == "RUNNING" for task in tasks[name])
        some = waiting[: max(0, min(room, step.parallel - running))]
        room -= len(some)
        decision.start += [task.id for task in some]
    if not any(standing == "open" for standing in standings.values()):
        decision.state, decision.reason = _end(tasks)
    return decision


def _standing(group: Sequence[Task]) -> Literal["open", "failed", "skipped", "done"]:
    states = {task.state for task in group}
    if states & OPEN:
        return "open"
    if states & BAD:
        return "failed"
    if states == {"SKIPPED"} and not all(task.left_out for task in group):
        return "skipped"
    return "done"


def _ready(spec: PipelineSpec, name: str, step: Step, standings: Mapping[str, str]) -> str | None:
    """Whether a step may run: "" if so, why it is skipped, None while it has to wait."""
    needs = spec.needs[name]
    if any(standings[other] == "open" for other in needs):
        return None
    if step.always:
        return ""
    if step.on_failure:
        failed = any(standings[other] == "failed" for other in graph.before(spec.needs, [name]))
        return "" if failed else "nothing has failed"
    for other in needs:
        if standings[other] == "failed":
            return f"{other} failed"
        if standings[other] == "skipped":
            return f"{other} was skipped"
    return ""


def _stopping(run: Run, tasks: Tasks) -> Decision:
    every = [task for group in tasks.values() for task in group]
    waiting = [task.id for task in every if task.state == "WAITING"]
    if any(task.state == "RUNNING" for task in every):
        return Decision("STOPPING", run.reason, run.ending, cancel=waiting, stop=True)
    return Decision(run.ending or "CANCELLED", run.reason, cancel=waiting)


def _end(tasks: Tasks) -> tuple[RunState, str]:
    """The state of a run of which nothing is open, and why."""
    every = [task for group in tasks.values() for task in group]
    bad = [task for task in every if task.state in BAD]
    if bad:
        names = list(dict.fromkeys(task.step for task in bad))
        first = bad[0]
        verb = "failed" if first.state == "FAILED" else "was cancelled"
        if len(names) > 1:
            return "FAILED", f"{listed(names)} failed; first {first.step}: {first.reason}"
        return "FAILED", f"{first.step} {verb}: {first.reason}".removesuffix(": ")
    counts = {
        state: sum(task.state == state for task in every)
        for state in ("SUCCEEDED", "CACHED", "SKIPPED")
    }
    told = [f"{counted(counts['SUCCEEDED'], 'run')} of steps"]
    if counts["CACHED"]:
        told.append(f"{counts['CACHED']} taken from before")
    if counts["SKIPPED"]:
        told.append(f"{counts['SKIPPED']} skipped")
    return "SUCCEEDED", ", ".join(told)


# -- how a job of a step ended -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class End:
    """How a task's job or sweep ended, and what it left.

    Args:
        state: SUCCEEDED, FAILED or CANCELLED.
        outputs: names of the outputs that are there.
        metrics: newest values on rank 0.
        left: what a step that is no job leaves to others.
    """

    state: str
    reason: str = ""
    outputs: frozenset[str] = frozenset()
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    left: Mapping[str, Any] = field(default_factory=dict)


def judge(
    step: Step,
    task: Task,
    end: End,
    demands: tuple[frozenset[str], frozenset[str]],
    *,
    stopping: bool,
) -> tuple[TaskState, str]:
    """What becomes of a task whose job has ended, and why; WAITING for another try.

    Args:
        demands: the outputs and the metrics that other steps take.
        stopping: the run is being stopped.
    """
    if end.state == "CANCELLED":
        return "CANCELLED", end.reason
    reason = end.reason
    if end.state == "SUCCEEDED":
        outputs, metrics = demands
        known = {name for name, value in end.metrics.items() if value is not None}
        if lost := sorted(outputs - end.outputs):
            reason = f"it succeeded without its output {lost[0]} ({step.outputs[lost[0]]})"
        elif lost := sorted(metrics - known):
            reason = f"it succeeded and logged no {lost[0]}, which another step takes"
        else:
            return "SUCCEEDED", ""
    if task.tries <= step.retries and not stopping:
        return "WAITING", f"try {task.tries} of {step.retries + 1} failed: {reason}"
    return "FAILED", reason


# -- a part of a pipeline ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Selection:
    """What a run of a part of a pipeline does with each step that is not run as usual.

    Args:
        fresh: run, though there may be an equal result from before.
        take: not run; what it left in an earlier run is taken, whatever has changed since.
        skip: left out.
    """

    fresh: frozenset[str] = frozenset()
    take: frozenset[str] = frozenset()
    skip: frozenset[str] = frozenset()


def select(spec: PipelineSpec, start: str | None = None, only: str | None = None) -> Selection:
    """What `--from` or `--only` comes to."""
    name = only or start
    if name is None:
        return Selection()
    fresh = {name} if only else {name, *graph.after(spec.needs, [name])}
    used = {
        item.step for one in fresh for _, item in spec.steps[one].references if item.step
    } - fresh
    return Selection(frozenset(fresh), frozenset(used), frozenset(set(spec.steps) - fresh - used))


def retried(task: Task) -> Task | None:
    """A task of a run that is run again: waiting, if it did not succeed; None if it stays as it is."""
    if task.state in ("SUCCEEDED", "CACHED") or task.left_out:
        return None
    return Task(task.step, task.number, "WAITING", "", task.tries)


Values = Mapping[str, Scalar]
"""What references yield, by their texts."""
