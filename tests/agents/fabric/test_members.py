"""Which of several rows of Ray's node table is the node."""

from __future__ import annotations

from itertools import permutations
from typing import Any

from agents.fabric.members import Members


def row(
    name: str, node_id: str, address: str = "10.0.0.1", *, alive: bool = True
) -> dict[str, Any]:
    return {
        "NodeID": node_id,
        "Alive": alive,
        "NodeManagerHostname": "host",
        "NodeManagerAddress": address,
        "Resources": {"CPU": 4.0, "GPU": 2.0, "memory": 1e9},
        "Labels": {"qd.node": name},
    }


def ids(members: Members, *rows: dict[str, Any]) -> list[str]:
    return [node.id for node in members.take(rows)]


def test_a_row_tells_what_the_node_has() -> None:
    (node,) = Members().take([row("w1", "a", "10.0.0.7"), row("w2", "b", alive=False)])
    assert (node.name, node.address, node.cpus, node.gpus) == ("w1", "10.0.0.7", 4.0, 2.0)
    assert node.conflict == ""


def test_without_a_label_the_hosts_name_is_the_nodes() -> None:
    (node,) = Members().take([row("", "a") | {"Labels": None}])
    assert node.name == "host"


def test_the_newer_incarnation_counts_while_ray_still_believes_in_the_older_one() -> None:
    """Whatever their ids and in whatever order Ray names them."""
    for old, new in permutations("ab"):
        members = Members()
        assert ids(members, row("w1", old)) == [old]
        for rows in permutations([row("w1", old), row("w1", new)]):
            assert ids(members, *rows) == [new]
        assert ids(members, row("w1", new)) == [new]


def test_a_choice_between_two_that_were_never_seen_does_not_change() -> None:
    members = Members()
    rows = [row("w1", "a"), row("w1", "b")]
    assert ids(members, *rows) == ids(members, *reversed(rows))


def test_a_second_host_with_the_same_name_is_told_and_does_not_take_over() -> None:
    members = Members()
    first, second = row("w1", "b", "10.0.0.1"), row("w1", "a", "10.0.0.2")
    members.take([first])
    for rows in permutations([first, second]):
        (node,) = members.take(rows)
        assert node.id == "b"
        assert node.conflict == "10.0.0.2 has the same name as 10.0.0.1"
    # The first one's Ray is replaced meanwhile: it is still the node.
    (node,) = members.take([second, row("w1", "c", "10.0.0.1"), first])
    assert node.id == "c"
    (node,) = members.take([second])
    assert (node.id, node.conflict) == ("a", "")
