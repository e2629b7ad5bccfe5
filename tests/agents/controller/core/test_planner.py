"""What the planner decides: who starts, why others wait, what can never run; and when it may decide."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from agents.controller.core.live import Live
from agents.controller.core.planner import JUDGED_FOR, Planner
from agents.controller.core.roster import Roster
from agents.controller.nodes.cluster import Cluster
from agents.controller.nodes.fabric import FabricNode
from jobs.life import lifecycle as lc
from jobs.spec.job import JobSpec
from jobs.wire.messages import NodeFacts
from jobs.wire.views import JobView


def facts(cpus: int = 4) -> NodeFacts:
    return {
        "cpus": cpus,
        "memory": 64 << 30,
        "gpus": [],
        "driver": "",
        "cuda": "",
        "kernel": "6.1",
        "python": "3.11",
        "ray": "2",
    }


class World:
    """A planner, and what it looks at."""

    def __init__(self) -> None:
        self.clock = 1000.0
        self.roster, self.cluster = Roster(), Cluster(lambda: self.clock)
        self.fabric, self.links = SimpleNamespace(state="connected"), SimpleNamespace(links={})
        self.planner = Planner(
            self.roster,
            cast("Any", self.fabric),
            cast("Any", self.links),
            self.cluster,
            lambda: self.clock,
            lambda: self.clock,
        )

    def node(self, name: str, cpus: int = 4, *, known: bool = True) -> None:
        node = self.cluster.node(name, "127.0.0.1")
        node.fabric = FabricNode(name, "127.0.0.1", name, float(cpus), 0.0, 64 << 30)
        node.facts = facts(cpus) if known else None
        self.cluster.heard(name)

    def job(self, number: int, cpu: float = 1.0, attempt: lc.Attempt | None = None) -> Live:
        spec = JobSpec.from_json({"command": "train", "resources": {"cpu": cpu}})
        job = lc.Job(number, "RUNNING" if attempt else "QUEUED", attempt=attempt)
        live = Live(job, cast("JobView", {}), spec, "mira", "train", float(number), None)
        self.roster.add(live)
        return live


@pytest.fixture
def world() -> World:
    return World()


def part_of(world: World, phase: lc.Phase = "running") -> None:
    """A job runs on n1, and the node was heard last before this controller began."""
    world.job(
        1, attempt=lc.Attempt(1, 7, "RUNNING", (lc.Allocation("n1", phase),), started_at=900.0)
    )
    world.links.links["n1"] = SimpleNamespace(clock_at=999.0)


def test_what_fits_starts_and_the_rest_has_a_reason(world: World) -> None:
    world.node("n1", cpus=4)
    world.job(1, cpu=3.0)
    world.job(2, cpu=3.0)
    plan = world.planner.decide()
    assert [(found.job, found.nodes) for found in plan.placements] == [(1, ("n1",))]
    assert 2 in plan.reasons


def test_what_runs_leaves_no_room(world: World) -> None:
    world.node("n1", cpus=4)
    world.job(
        1, 3.0, lc.Attempt(1, 7, "RUNNING", (lc.Allocation("n1", "running"),), started_at=900.0)
    )
    world.job(2, cpu=3.0)
    plan = world.planner.decide()
    assert plan.placements == []
    assert set(plan.reasons) == {2}


def test_nothing_is_settled_without_the_fabric(world: World) -> None:
    assert world.planner.settled
    world.fabric.state = "connecting"
    assert not world.planner.settled


def test_a_node_that_holds_something_has_to_be_heard_first(world: World) -> None:
    part_of(world)
    assert not world.planner.settled
    world.links.links["n1"].clock_at = 1001.0
    assert world.planner.settled


@pytest.mark.parametrize("phase", ["ended", "gone"])
def test_a_part_that_is_over_is_waited_for_no_longer(world: World, phase: lc.Phase) -> None:
    part_of(world, phase)
    assert world.planner.settled


def test_a_node_that_is_no_member_is_not_waited_for(world: World) -> None:
    part_of(world)
    del world.links.links["n1"]
    assert world.planner.settled


def test_what_fits_nowhere_is_refused_at_once(world: World) -> None:
    world.node("n1", cpus=4)
    large = JobSpec.from_json({"command": "train", "resources": {"cpu": 64}}).shape()
    small = JobSpec.from_json({"command": "train", "resources": {"cpu": 1}}).shape()
    assert world.planner.refusal(large)
    assert world.planner.refusal(small) is None


def test_nobody_is_refused_while_too_little_is_known(world: World) -> None:
    large = JobSpec.from_json({"command": "train", "resources": {"cpu": 64}}).shape()
    world.node("n1", known=False)
    assert world.planner.refusal(large) is None, "it may have 64 cores"
    world.cluster.nodes["n1"].facts = facts()
    assert world.planner.refusal(large) is None, "judged by what was known a moment ago"
    world.clock += JUDGED_FOR
    assert world.planner.refusal(large)
    world.node("n2", cpus=64)
    assert world.planner.refusal(large), "as before"
    world.planner.look_again()
    assert world.planner.refusal(large) is None
