"""What a front is asked for, and that no request of its counts is judged twice."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from jobs.services.evidence import Counts
from jobs.services.front import (
    Baseline,
    Replica,
    Service,
    asked,
    asked_of,
    needs,
    observe,
)
from jobs.services.histogram import Seen, edge_of
from jobs.services.rollout import Deployed, Deployment, Observed, Plan, Ready, Tick, handle
from jobs.services.scaling import Scale

EMPTY = Deployment(3, "digits", "production")
CANARY = Plan(steps=(5, 50), rest=60, least=20, slower=1.5)


def serving(plan: Plan = CANARY) -> Deployment:
    """Version 1 serves; version 2 has its first step."""
    new = EMPTY
    for event in (Deployed(1, "1", 1, Plan(), "ann"), Ready(1)):
        new = handle(new, event, 0).deployment
    for event in (Deployed(2, "2", 1, plan, "ann"), Ready(2)):
        new = handle(new, event, 10).deployment
    return new


def counts(**seen: tuple[int, int]) -> dict[str, Any]:
    """`d3r1=(100, 2)`: a hundred requests, two in error, all in the tenth bucket."""
    return {
        name: {"seen": total, "bad": bad, "times": {"10": total}}
        for name, (total, bad) in seen.items()
    }


def test_a_front_is_asked_for_both_versions_and_the_split() -> None:
    service = Service(
        serving(),
        "127.0.0.1",
        8600,
        {1: "/ready", 2: "/ready"},
        {1: [Replica("e7", "10.0.0.1:20")]},
    )
    assert asked([service]) == {
        "services": [
            {
                "name": "d3",
                "bind": "127.0.0.1",
                "port": 8600,
                "stable": "d3r1",
                "candidate": "d3r2",
                "share": 5,
                "backends": [
                    {
                        "name": "d3r1",
                        "ready": "/ready",
                        "servers": [{"name": "e7", "address": "10.0.0.1:20"}],
                        "hold": None,
                    },
                    {"name": "d3r2", "ready": "/ready", "servers": [], "hold": None},
                ],
                "scaled": False,
                "keyed": False,
                "keys": {},
                "tls": None,
            }
        ]
    }


def test_a_version_that_is_gone_has_no_traffic() -> None:
    gone = handle(serving(Plan()), Tick(), 1e9).deployment
    (service,) = asked([Service(gone, "::1", 1, {2: "/"}, {})])["services"]
    assert (service["stable"], service["candidate"], len(service["backends"])) == ("d3r2", "", 1)


def test_what_was_before_the_rollout_is_no_part_of_it() -> None:
    event, baseline = observe(serving(), Baseline(), "b", counts(d3r1=(1000, 500)))
    assert event is None
    event, _ = observe(serving(), baseline, "b", counts(d3r1=(1010, 500), d3r2=(5, 1)))
    assert event is not None
    assert (event.old, event.new) == (Counts(10, 0), Counts(5, 1))
    assert event.edge is not None  # from the thousand before it


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.booleans()), max_size=30))
def test_every_request_is_counted_once_whatever_restarts(
    steps: list[tuple[int, int, bool]],
) -> None:
    """`lost`: the front is started again, and its counts begin at nothing."""
    _, baseline = observe(serving(), Baseline(), "0", counts(d3r1=(100, 0)))
    boot, old, new, total, told = 0, 100, 0, 0, 0
    for more_old, more_new, lost in steps:
        if lost:
            boot, old, new = boot + 1, 0, 0
        old, new, total = old + more_old, new + more_new, total + more_old + more_new
        event, baseline = observe(
            serving(), baseline, str(boot), counts(d3r1=(old, 0), d3r2=(new, 0))
        )
        baseline = Baseline.from_json(baseline.to_json())  # as after a crash
        told += event.old.seen + event.new.seen if isinstance(event, Observed) else 0
    assert told == total


def test_slow_is_what_exceeds_the_edge_of_a_bucket() -> None:
    seen = Seen(6, 0, {10: 3, 11: 2, 12: 1})
    assert seen.slow(edge_of(11)) == Counts(6, 1)
    assert seen.slow(edge_of(10)) == Counts(6, 3)
    assert (seen.quantile(0.5), seen.quantile(0.99)) == (edge_of(10), edge_of(12))
    assert Seen().quantile(0.5) is None


def test_a_front_is_asked_to_hold_what_finds_no_replica_where_there_may_be_none() -> None:
    deployment = serving()
    (first, *_) = deployment.releases
    for low, hold in ((0, {"seconds": 60.0, "requests": 100}), (1, None)):
        scaled = deployment.having(replace(first, scale=Scale(min=low, max=2)))
        made = asked_of(Service(scaled, "127.0.0.1", 8600, {1: "/", 2: "/"}, {}))
        assert made["backends"][0]["hold"] == hold
        assert needs(made) == {"scale"}
    assert needs(asked_of(Service(deployment, "127.0.0.1", 8600, {1: "/", 2: "/"}, {}))) == set()
