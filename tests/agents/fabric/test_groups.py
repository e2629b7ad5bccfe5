"""Reservations that are handed on, over a Ray that does not believe at once that something is free."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from agents.fabric.groups import KEPT, Groups

ONE = [("node1", 1.0, 0.5)]


@dataclass(frozen=True)
class Id:
    number: int

    def hex(self) -> str:
        return f"{self.number:04x}"


@dataclass
class Group:
    ray: Ray
    id: Id
    name: str
    bundles: list[dict[str, float]]
    nodes: list[str]
    state: str = "PENDING"

    def wait(self, patience: float) -> bool:
        self.ray.waited += 1
        if self.state == "PENDING" and self.ray.room(self.bundles):
            self.state = "CREATED"
        return self.state == "CREATED"


@dataclass
class Ray:
    """`ray.util` of one node with 2 CPUs. What was removed is free after `settle`, and not before."""

    cpus: float = 2.0
    groups: list[Group] = field(default_factory=list)
    settling: list[Group] = field(default_factory=list)
    waited: int = 0
    calls: list[str] = field(default_factory=list)

    def room(self, bundles: list[dict[str, float]]) -> bool:
        held = [group for group in self.groups if group.state == "CREATED"] + self.settling
        taken = sum(bundle["CPU"] for group in held for bundle in group.bundles)
        return taken + sum(bundle["CPU"] for bundle in bundles) <= self.cpus

    def settle(self) -> None:
        self.settling.clear()

    def placement_group(self, bundles: Any, *, name: str, **options: Any) -> Group:
        assert not any(group.name == name for group in self.groups), "Ray refuses a name twice"
        nodes = [chosen["ray.io/node-id"] for chosen in options["bundle_label_selector"]]
        group = Group(self, Id(len(self.calls)), name, bundles, nodes)
        self.calls.append(f"make {name}")
        self.groups.append(group)
        return group

    def remove_placement_group(self, group: Group) -> None:
        self.calls.append(f"remove {group.name}")
        if group in self.groups:
            self.groups.remove(group)
            self.settling.append(group)

    def get_placement_group(self, name: str) -> Group:
        for group in self.groups:
            if group.name == name:
                return group
        raise ValueError(name)

    def placement_group_table(self, group: Group | None = None) -> Any:
        def told(group: Group) -> dict[str, Any]:
            return {
                "placement_group_id": group.id.hex(),
                "name": group.name,
                "state": group.state,
                "bundles": dict(enumerate(group.bundles)),
                "bundles_to_node_id": dict(enumerate(group.nodes)),
            }

        if group is not None:
            return told(group)
        return {group.id.hex(): told(group) for group in self.groups}


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def ray() -> Ray:
    return Ray()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def groups(ray: Ray, clock: Clock) -> Groups:
    return Groups(ray, clock)


def test_what_is_released_is_had_again_at_once(groups: Groups, ray: Ray) -> None:
    whole = [("node1", 2.0, 0.0)]
    assert groups.reserve("a", whole, 0)
    groups.release("a")
    assert groups.names() == [], "it is nobody's meanwhile"
    assert groups.reserve("b", whole, 0), "though Ray would say that the node is full"
    assert groups.names() == ["b"]
    assert ray.calls == ["make qd:a"]
    groups.release("a")
    assert groups.names() == ["b"], "a release that is said again takes nothing from another"


def test_what_nobody_asks_for_again_is_given_back(groups: Groups, ray: Ray, clock: Clock) -> None:
    groups.reserve("a", ONE, 0)
    groups.release("a")
    clock.now += KEPT / 2
    groups.expire()
    assert ray.groups
    clock.now += KEPT / 2
    groups.expire()
    assert ray.groups == []
    assert groups.reserve("b", ONE, 0)
    groups.expire()
    assert groups.names() == ["b"]


def test_another_shape_waits_for_nothing_that_is_only_kept(groups: Groups, ray: Ray) -> None:
    groups.reserve("a", [("node1", 1.0, 0.0)], 0)
    groups.reserve("elsewhere", [("node2", 1.0, 0.0)], 0)
    groups.release("a")
    groups.release("elsewhere")
    ray.cpus = 4.0
    assert groups.reserve("b", [("node1", 2.0, 0.0)], 0)
    assert [group.name for group in ray.groups] == ["qd:elsewhere", "qd:b"]


def test_of_a_name_that_was_handed_on_there_can_be_another(groups: Groups) -> None:
    assert groups.reserve("a", ONE, 0)
    groups.release("a")
    assert groups.reserve("b", ONE, 0)
    assert groups.reserve("a", ONE, 0), "a second one"
    assert groups.names() == ["a", "b"]
    groups.release("a")
    assert groups.names() == ["b"]


def test_a_group_that_lost_its_node_is_not_handed_on(groups: Groups, ray: Ray) -> None:
    groups.reserve("a", ONE, 0)
    groups.release("a")
    ray.groups[0].state = "RESCHEDULING"
    assert not groups.reserve("b", [("node1", 2.0, 0.5)], 0), "it still takes room"
    ray.settle()
    groups.reserve("a", ONE, 0)
    groups.release("a")
    ray.groups[0].state = "RESCHEDULING"
    assert groups.reserve("c", ONE, 0)
    assert [group.name for group in ray.groups] == ["qd:c"]


def test_one_that_is_asked_for_again_on_other_nodes_is_made_anew(groups: Groups, ray: Ray) -> None:
    groups.reserve("a", ONE, 0)
    assert groups.reserve("a", ONE, 0)
    assert ray.calls == ["make qd:a"], "idempotent by name"
    assert groups.reserve("a", [("node9", 1.0, 0.5)], 0), "the node came back as another"
    assert ray.groups[0].nodes == ["node9"]
    assert groups.names() == ["a"]


def test_what_is_not_granted_leaves_nothing(groups: Groups, ray: Ray) -> None:
    assert not groups.reserve("a", [("node1", 3.0, 0.0)], 0)
    assert (ray.groups, groups.names()) == ([], [])


def test_another_driver_takes_over(groups: Groups, ray: Ray, clock: Clock) -> None:
    """It knows groups only by the names that they were made under: the controller compares, and what it
    then asks for never leaves the reservation open to others."""
    whole = [("node1", 2.0, 0.0)]
    groups.reserve("a", whole, 0)
    groups.release("a")
    groups.reserve("b", whole, 0)
    later = Groups(ray, clock)
    assert later.names() == ["a"]
    later.release("a")
    assert later.reserve("b", whole, 0)
    assert later.names() == ["b"]
    assert ray.calls == ["make qd:a"]


def test_a_release_that_is_said_twice_at_a_time_keeps_one(groups: Groups, ray: Ray) -> None:
    """Two takers must not be handed the same room."""
    Groups(ray).reserve("a", ONE, 0)  # by another driver
    told = ray.placement_group_table

    def meanwhile(group: Group | None = None) -> Any:
        ray.placement_group_table = told  # type: ignore[method-assign]
        groups.release("a")
        return told(group)

    ray.placement_group_table = meanwhile  # type: ignore[method-assign]
    groups.release("a")
    assert groups.reserve("b", ONE, 0)
    assert groups.reserve("c", ONE, 0)
    assert len(ray.groups) == 2


def test_what_a_lost_driver_was_still_asking_for_is_removed(groups: Groups, ray: Ray) -> None:
    ray.placement_group(
        [{"CPU": 1.0}], name="qd:a", bundle_label_selector=[{"ray.io/node-id": "node1"}]
    )
    groups.release("a")
    assert ray.groups == []


def test_of_others_groups_nothing_is_said(groups: Groups, ray: Ray) -> None:
    ray.placement_group(
        [{"CPU": 1.0}], name="serve", bundle_label_selector=[{"ray.io/node-id": "node1"}]
    )
    assert groups.names() == []


def test_a_bundle_without_cpus_is_a_bundle(groups: Groups, ray: Ray) -> None:
    third = [("node1", 0.0, 1 / 3)]
    assert groups.reserve("a", third, 0)
    ray.groups[0].bundles[0]["GPU"] = 0.3333  # as Ray counts
    groups.release("a")
    assert groups.reserve("b", third, 0)
    assert ray.calls == ["make qd:a"]
