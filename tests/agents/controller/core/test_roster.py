"""The roster says the same as a count over all jobs would, after whatever has happened to them."""

from __future__ import annotations

from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from agents.controller.core.live import Live
from agents.controller.core.roster import Roster
from jobs.base.names import job_name
from jobs.life import lifecycle as lc
from jobs.spec.job import JobSpec
from jobs.wire.views import JobView

NODES = ("n1", "n2", "n3")
SPECS = [
    JobSpec.from_json({"command": "train", "resources": {"cpu": cpu, "gpu": gpu}})
    for cpu, gpu in ((0.5, 0.0), (1.0, 1.0), (2.0, 2.0))
]


def live(number: int, spec: JobSpec) -> Live:
    return Live(lc.Job(number), cast("JobView", {}), spec, "mira", "train", float(number), None)


attempts = st.one_of(
    st.none(),
    st.builds(
        lambda nodes, released: lc.Attempt(
            1, 1, "STOPPING", tuple(lc.Allocation(node) for node in nodes), released=released
        ),
        st.lists(st.sampled_from(NODES), min_size=1, unique=True),
        st.booleans(),
    ),
)
changes = st.lists(
    st.tuples(
        st.integers(1, 4),
        st.sampled_from(["QUEUED", "PLACING", "STOPPING", "SUCCEEDED", "dropped"]),
        attempts,
    ),
    max_size=20,
)


@given(changes, st.lists(st.sampled_from(SPECS), min_size=4, max_size=4))
def test_it_counts_what_is_there(
    history: list[tuple[int, Any, lc.Attempt | None]], specs: list[JobSpec]
) -> None:
    roster = Roster()
    jobs = {number: live(number, spec) for number, spec in enumerate(specs, 1)}
    for number, state, attempt in history:
        job = jobs[number]
        if state == "dropped":
            roster.drop(job)
            continue
        job.job = lc.Job(number, state, attempt=attempt)
        roster.add(job)
        here = roster.live.values()
        assert set(roster.waiting) == {one.job.id for one in here if one.waiting}
        assert {request.job for request in roster.queue} == set(roster.waiting)
        assert set(roster.holding) == {one.job.id for one in here if one.holding}
        expected: dict[str, tuple[set[str], float, float]] = {}
        for node in NODES:
            on = [
                one
                for one in roster.holding.values()
                if one.job.attempt
                and any(allocation.node == node for allocation in one.job.attempt.allocations)
            ]
            if on:
                expected[node] = (
                    {job_name(one.job.id) for one in on},
                    sum(one.shape.gpus for one in on),
                    sum(one.shape.cpus for one in on),
                )
        assert dict(roster.busy) == expected
