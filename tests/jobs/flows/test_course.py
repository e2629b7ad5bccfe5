"""The course of a run: every graph ends, whatever is killed when, and nothing starts twice."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.flows import graph
from jobs.flows.course import (
    BAD,
    ENDED,
    End,
    Run,
    Task,
    TaskId,
    decide,
    judge,
    retried,
    select,
)
from jobs.flows.spec import PipelineSpec

ACTS: dict[str, Any] = {
    "register": {"model": "m", "run": "j1"},
    "gate": {"model": "m:1", "name": "g", "conditions": ["acc > 0"]},
    "approval": {"model": "m:1"},
    "deploy": {"model": "m:1"},
    "notify": {"text": "{state}"},
}
NOTHING: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset())


@st.composite
def specs(draw: st.DrawFn) -> PipelineSpec:
    names = [f"s{number}" for number in range(draw(st.integers(1, 7)))]
    steps: dict[str, Any] = {}
    for place, name in enumerate(names):
        kind = draw(st.sampled_from(["job", "job", "job", *ACTS]))
        inner = {"command": "x"} if kind == "job" else ACTS[kind]
        step: dict[str, Any] = {kind: inner, "retries": draw(st.integers(0, 2))}
        step["needs"] = draw(st.lists(st.sampled_from(names[:place]), unique=True)) if place else []
        ends = draw(st.sampled_from(["", "", "", "always", "on_failure"]))
        if ends:
            step[ends] = True
        if kind == "job" and draw(st.booleans()):
            step["matrix"] = {"x": list(range(draw(st.integers(1, 3))))}
            step["parallel"] = draw(st.integers(1, 3))
        steps[name] = step
    return PipelineSpec.from_json({"steps": steps, "parallel": draw(st.integers(1, 4))})


@dataclass
class World:
    """The registry of a run, and the jobs that were entered in it."""

    spec: PipelineSpec
    run: Run = field(default_factory=lambda: Run("RUNNING", 0.0))
    tasks: dict[str, list[Task]] = field(default_factory=dict)
    entered: dict[tuple[TaskId, int], str] = field(default_factory=dict)  # by key: how it is
    most: int = 0

    def __post_init__(self) -> None:
        for name, step in self.spec.steps.items():
            self.tasks[name] = [Task(name, number) for number in range(step.count)]

    def act(self, *, lost: bool) -> None:
        """One pass. `lost`: the controller was killed before its transaction was committed."""
        decision = decide(self.spec, self.run, self.tasks, 0.0)
        if lost:
            return
        for (name, number), reason in decision.skip:
            self.change(self.tasks[name][number], "SKIPPED", reason)
        for name, number in decision.cancel:
            self.change(self.tasks[name][number], "CANCELLED")
        for name, number in decision.start:
            task = self.tasks[name][number]
            assert all(
                item.state not in ("WAITING", "RUNNING")
                for other in self.spec.needs[name]
                for item in self.tasks[other]
            )
            key = task.id, task.tries + 1
            assert key not in self.entered, "it was started twice"
            self.entered[key] = "RUNNING"
            self.tasks[name][number] = replace(task, state="RUNNING", tries=task.tries + 1)
            running = [item for item in self.tasks[name] if item.state == "RUNNING"]
            assert len(running) <= self.spec.steps[name].parallel
        assert sum(how == "RUNNING" for how in self.entered.values()) <= self.spec.parallel
        self.run = Run(decision.state, 0.0, decision.reason, decision.ending)

    def change(self, task: Task, state: Any, reason: str = "") -> None:
        assert task.state == "WAITING"
        self.tasks[task.step][task.number] = replace(task, state=state, reason=reason)

    def end(self, key: tuple[TaskId, int], state: str) -> None:
        """A job ends, and the next pass takes note of it."""
        self.entered[key] = state
        (name, number), _ = key
        task = self.tasks[name][number]
        stopping = self.run.state == "STOPPING"
        new, reason = judge(self.spec.steps[name], task, End(state), NOTHING, stopping=stopping)
        self.tasks[name][number] = replace(task, state=new, reason=reason)


@settings(max_examples=300, deadline=None)
@given(specs(), st.data())
def test_every_run_ends_and_nothing_starts_twice(spec: PipelineSpec, data: st.DataObject) -> None:
    world = World(spec)
    cancel_at = data.draw(st.one_of(st.none(), st.integers(0, 20)))
    for turn in range(500):
        if world.run.state in ENDED:
            break
        if turn == cancel_at and world.run.state == "RUNNING":
            world.run = Run("STOPPING", 0.0, "cancelled by ada", "CANCELLED")
        lost = turn < 200 and data.draw(st.booleans(), label="killed before the commit")
        world.act(lost=lost)
        running = sorted(key for key, how in world.entered.items() if how == "RUNNING")
        if running and world.run.state == "STOPPING":
            world.end(data.draw(st.sampled_from(running)), "CANCELLED")
        elif running:
            key = data.draw(st.sampled_from(running))
            world.end(key, data.draw(st.sampled_from(["SUCCEEDED", "SUCCEEDED", "FAILED"])))
    every = [task for group in world.tasks.values() for task in group]
    assert world.run.state in ENDED, every
    assert all(task.state not in ("WAITING", "RUNNING") for task in every)
    if world.run.state == "SUCCEEDED":
        assert not any(task.state in BAD for task in every)
    for name, step in spec.steps.items():
        ran = any(task.tries for task in world.tasks[name])
        failed = any(
            task.state in BAD
            for other in graph.before(spec.needs, [name])
            for task in world.tasks[other]
        )
        if world.run.state == "CANCELLED":
            continue
        if step.on_failure:
            assert ran == failed
        elif step.always:
            assert ran
        elif ran:
            assert not any(
                task.state in BAD for other in spec.needs[name] for task in world.tasks[other]
            )
        assert all(task.tries <= step.retries + 1 for task in world.tasks[name])


def spec_of(**steps: Any) -> PipelineSpec:
    return PipelineSpec.from_json(
        {"steps": {name: {"job": {"command": "x"}, **step} for name, step in steps.items()}}
    )


def test_a_time_limit_stops_what_runs() -> None:
    spec = spec_of(a={}, b={"needs": ["a"]})
    spec = PipelineSpec.from_json(spec.to_json() | {"timeout": 60})
    tasks = {"a": [Task("a", 0, "RUNNING", tries=1)], "b": [Task("b", 0)]}
    decision = decide(spec, Run("RUNNING", 100.0), tasks, 159.0)
    assert (decision.state, decision.within, decision.stop) == ("RUNNING", 1.0, False)
    decision = decide(spec, Run("RUNNING", 100.0), tasks, 160.0)
    assert (decision.state, decision.ending, decision.stop) == ("STOPPING", "FAILED", True)
    assert decision.cancel == [("b", 0)]
    assert decision.reason == "ran longer than its timeout of 60 s"
    over = {"a": [Task("a", 0, "CANCELLED")], "b": [Task("b", 0, "CANCELLED")]}
    decision = decide(spec, Run("STOPPING", 100.0, "late", "FAILED"), over, 160.0)
    assert (decision.state, decision.reason) == ("FAILED", "late")


def test_what_a_step_was_to_leave_must_be_there() -> None:
    spec = spec_of(a={"retries": 1, "job": {"command": "x", "outputs": {"model": "m.bin"}}})
    step, task = spec.steps["a"], Task("a", 0, "RUNNING", tries=1)
    wanted = frozenset({"model"}), frozenset({"acc"})
    state, reason = judge(step, task, End("SUCCEEDED"), wanted, stopping=False)
    assert state == "WAITING"
    assert reason == "try 1 of 2 failed: it succeeded without its output model (m.bin)"
    end = End("SUCCEEDED", outputs=frozenset({"model"}), metrics={"acc": None})
    state, reason = judge(step, replace(task, tries=2), end, wanted, stopping=False)
    assert (state, reason) == ("FAILED", "it succeeded and logged no acc, which another step takes")
    end = replace(end, metrics={"acc": 0.5})
    assert judge(step, task, end, wanted, stopping=False)[0] == "SUCCEEDED"
    assert judge(step, task, End("FAILED", "no"), wanted, stopping=True) == ("FAILED", "no")


def test_a_part_of_a_pipeline() -> None:
    spec = PipelineSpec.from_json(
        {
            "steps": {
                "data": {"job": {"command": "x", "outputs": {"o": "o"}}},
                "clean": {"job": {"command": "x"}, "needs": ["data"]},
                "train": {
                    "job": {"command": "x", "outputs": {"o": "o"}},
                    "inputs": {"i": "${steps.data.outputs.o}"},
                    "needs": ["clean"],
                },
                "test": {
                    "job": {"command": "x"},
                    "inputs": {"i": "${steps.train.outputs.o}"},
                },
                "other": {"job": {"command": "x"}},
            }
        }
    )
    part = select(spec, only="train")
    assert set(part.fresh) == {"train"}
    assert set(part.take) == {"data"}
    assert part.skip == {"clean", "test", "other"}
    part = select(spec, start="train")
    assert set(part.fresh) == {"train", "test"}
    assert set(part.take) == {"data"}
    assert select(spec) == select(spec, None, None)
    assert not select(spec).fresh


def test_a_cycle_is_named() -> None:
    assert graph.cycle({"a": ["b"], "b": ["c"], "c": ["b"]}) == ["b", "c", "b"]
    assert graph.cycle({"a": ["a"]}) == ["a", "a"]
    assert graph.cycle({"a": ["b", "c"], "b": ["c"], "c": []}) == []
    long = {f"s{n}": [f"s{n + 1}"] for n in range(5000)} | {"s5000": []}
    assert graph.cycle(long) == []
    assert graph.order(long)[0] == "s5000"


def test_what_a_person_has_run_again() -> None:
    assert retried(Task("a", 0, "SUCCEEDED")) is None
    assert retried(Task("a", 0, "SKIPPED", left_out=True)) is None
    assert retried(Task("a", 0, "FAILED", "no", 2)) == Task("a", 0, "WAITING", "", 2)
