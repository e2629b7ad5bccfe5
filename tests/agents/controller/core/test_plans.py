"""What each agent is told of a gang: the parts fit together, and everything that the spec says is there."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agents.controller.core.plans import launch_plan
from jobs.life.lifecycle import Allocation, Attempt
from jobs.spec.job import JobSpec
from jobs.wire.messages import LaunchPlan


def plan(spec: dict[str, Any], node_rank: int = 0, **more: Any) -> LaunchPlan:
    checked = JobSpec.from_json({"command": "train --fast", **spec})
    attempt = Attempt(3, 17, "STAGING", tuple(Allocation(f"n{n}") for n in range(checked.nodes)))
    given: dict[str, Any] = {"snapshot": None, "requirements": None, "user": "mira", "data": {}}
    return launch_plan(
        key="c-j5.3", job=5, attempt=attempt, node_rank=node_rank, spec=checked, **(given | more)
    )


@given(st.integers(1, 6), st.integers(1, 8))
def test_the_ranks_of_all_parts_are_the_gangs(nodes: int, procs: int) -> None:
    """Each of them once, from 0 on, in order of node rank."""
    parts = [plan({"nodes": nodes, "procs_per_node": procs}, rank) for rank in range(nodes)]
    ranks = [part["first_rank"] + local for part in parts for local in range(part["procs"])]
    assert ranks == list(range(parts[0]["world_size"])) == list(range(nodes * procs))
    assert [part["node_rank"] for part in parts] == list(range(nodes))
    same = [{**part, "node_rank": 0, "first_rank": 0} for part in parts]
    assert all(part == same[0] for part in same), "and but for that they are told the same"


def test_it_names_the_attempt() -> None:
    told = plan({})
    assert (told["key"], told["job"], told["attempt"], told["epoch"]) == ("c-j5.3", "j5", 3, 17)
    assert told["user"] == "mira"


def test_what_the_job_asks_for_is_passed_on() -> None:
    spec = {
        "env": {"A": "b"},
        "resources": {"cpu": 2, "gpu": 1, "memory": "8GiB"},
        "params": {"lr": 0.1},
        "seed": 7,
        "grace": 12.0,
        "lease": 45.0,
        "outputs": {"model": "model.pt"},
    }
    told = plan(spec, snapshot="abc", requirements="numpy\n")
    assert told["env"] == {"A": "b"}
    assert (told["cpus"], told["gpus"]) == (2, 1)
    assert told["memory"]
    assert (told["params"], told["seed"]) == ({"lr": 0.1}, 7)
    assert (told["grace"], told["lease"]) == (12.0, 45.0)
    assert told["outputs"] == {"model": "model.pt"}
    assert (told["snapshot"], told["requirements"]) == ("abc", "numpy\n")


def test_what_it_does_not_ask_for_is_not_there() -> None:
    """An agent of an older version knows nothing of it."""
    told = plan({"checkpoint": {"copy": "off"}})
    assert not {"image", "mounts", "copy", "resume"} & told.keys()


def test_a_copy_of_a_checkpoint_comes_with_the_plan() -> None:
    resume: Any = {"digest": "d"}
    assert plan({}, resume=resume)["resume"] is resume


def test_a_plan_does_not_change_with_the_spec_it_was_made_of() -> None:
    checked = JobSpec.from_json({"command": "train", "env": {"A": "b"}})
    attempt = Attempt(1, 1, "STAGING", (Allocation("n0"),))
    told = launch_plan(
        key="c-j1.1",
        job=1,
        attempt=attempt,
        node_rank=0,
        spec=checked,
        snapshot=None,
        requirements=None,
        user="mira",
        data={},
    )
    told["env"]["C"] = "d"
    assert dict(checked.env) == {"A": "b"}
