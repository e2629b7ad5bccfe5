"""Which jobs have run for too long, and which allocations cannot be alive any more."""

from __future__ import annotations

from typing import Any, cast

import pytest

from agents.controller.core import deadlines
from agents.controller.core.deadlines import LEASE_MARGIN
from agents.controller.core.live import Live
from agents.controller.nodes.fabric import FabricNode
from agents.controller.nodes.links import Keeper, Link
from jobs.life import lifecycle as lc
from jobs.life.outages import Ahead
from jobs.spec.job import JobSpec
from jobs.wire.views import JobView

LEASE, GRACE, SINCE = 30.0, 10.0, 1_000.0
NEVER = Ahead()

NOBODY = cast("Keeper", None)  # no link runs here


def running(
    *allocations: lc.Allocation,
    started_at: float | None = 500.0,
    waits: bool = False,
    **fields: Any,
) -> Live:
    """A job that this controller has seen running since `SINCE` on its own clock."""
    attempt = lc.Attempt(1, 7, "RUNNING", allocations, started_at=started_at, waits=waits)
    spec = JobSpec.from_json({"command": "train", "lease": LEASE, "grace": GRACE, **fields})
    return Live(
        job=lc.Job(1, "RUNNING", attempt=attempt, attempts=1),
        view=cast("JobView", {}),
        spec=spec,
        user="mira",
        name="train",
        submitted_at=0.0,
        snapshot=None,
        running_since=SINCE,
    )


def link(live: Live, heard_at: float) -> Link:
    """One to the node n1, which was heard at that time and given its lease then."""
    found = Link(FabricNode("n1", "", "n1-1", 1.0, 0.0, 0), NOBODY, clock_at=heard_at)
    found.grant(live.key("c"), LEASE)
    return found


def gone(
    live: Live, links: dict[str, Link], at: float, ahead: Ahead = NEVER
) -> list[tuple[str, float | None]]:
    found = deadlines.gone([live], links, "c", at, ahead)
    return [(event.node, event.silent) for _, event in found]


@pytest.mark.parametrize("phase", ["staged", "running", "stopping"])
def test_a_part_is_gone_when_lease_grace_and_margin_are_over(phase: Any) -> None:
    live = running(lc.Allocation("n1", phase))
    links = {"n1": link(live, heard_at=2_000.0)}
    bound = 2_000.0 + LEASE + GRACE + LEASE_MARGIN
    assert gone(live, links, 2_000.0 + LEASE + LEASE_MARGIN + 0.1) == [], "its ranks may be ending"
    assert gone(live, links, bound) == []
    ((node, silent),) = gone(live, links, bound + 0.1)
    assert node == "n1"
    assert silent == pytest.approx(bound + 0.1 - 2_000.0)


def test_without_a_grant_of_ours_it_counts_from_when_we_saw_it_run() -> None:
    live = running(lc.Allocation("n1", "running"), lc.Allocation("n2", "running"))
    bound = SINCE + LEASE + GRACE + LEASE_MARGIN
    assert gone(live, {}, bound) == []
    assert gone(live, {}, bound + 0.1) == [("n1", None), ("n2", None)]


def test_each_node_has_its_own_bound() -> None:
    live = running(lc.Allocation("n1", "running"), lc.Allocation("n2", "running"))
    links = {"n1": link(live, heard_at=2_000.0)}
    assert [node for node, _ in gone(live, links, 2_001.0)] == ["n2"]


def test_during_a_maintenance_nothing_is_given_up() -> None:
    live, ahead = running(lc.Allocation("n1", "running")), Ahead(until=5_000.0)
    assert gone(live, {}, 4_999.0, ahead) == []
    assert gone(live, {}, 5_000.0, ahead) == [("n1", None)]


def test_what_an_earlier_controller_granted_ahead_is_waited_for() -> None:
    live, ahead = (
        running(lc.Allocation("n1", "running"), lc.Allocation("n2", "running")),
        Ahead(earlier=4_000.0),
    )
    links = {"n1": link(live, heard_at=2_000.0)}
    bound = 4_000.0 + LEASE + GRACE + LEASE_MARGIN
    assert gone(live, links, bound, ahead) == []
    assert [node for node, _ in gone(live, links, bound + 0.1, ahead)] == ["n1", "n2"]


def test_what_waits_is_never_given_up_by_time() -> None:
    live = running(lc.Allocation("n1", "running"), waits=True)
    assert gone(live, {"n1": link(live, heard_at=2_000.0)}, 1e12) == []
    assert gone(live, {}, 1e12, Ahead(earlier=4_000.0)) == []


def test_what_is_not_over_on_a_node() -> None:
    live = running(lc.Allocation("n1", "ended"), lc.Allocation("n2", "running"), waits=True)
    assert [one.node for _, one in deadlines.open_allocations([live], "n2")] == ["n2"]
    assert list(deadlines.open_allocations([live], "n1")) == []


def restarted(live: Live, boot: str, *known: str) -> list[str]:
    found = deadlines.restarted([live], "n1", boot, known, "c")
    return [event.node for _, event in found]


@pytest.mark.parametrize("waits", [False, True])
def test_a_later_boot_of_the_machine_ends_what_it_no_longer_tells_of(waits: bool) -> None:
    live = running(
        lc.Allocation("n1", "running", boot="m/a"), lc.Allocation("n2", "running"), waits=waits
    )
    assert restarted(live, "m/b") == ["n1"]
    assert restarted(live, "m/b", live.key("c")) == [], "it tells how that ended"
    assert restarted(live, "m/a") == [], "its disk is lost, and its processes may run"
    assert restarted(live, "other/b") == [], "another machine under its name"
    assert restarted(running(lc.Allocation("n1", "running")), "m/b") == [], (
        "nobody knows where it was staged"
    )


def test_only_what_waits_and_is_not_told_of_is_asked_after() -> None:
    def found(live: Live, at: float, *, online: bool = True, told: bool = False) -> list[str]:
        known = Link(FabricNode("n1", "", "n1-1", 1.0, 0.0, 0), NOBODY, online=online)
        if told:
            known.reports[live.key("c")] = cast("Any", {})
        return [node for _, node in deadlines.unreported([live], {"n1": known}, "c", at)]

    live, late = running(lc.Allocation("n1", "running"), waits=True), SINCE + LEASE
    assert found(live, late) == ["n1"]
    assert found(live, late - 1.0) == [], "its first report may be on its way"
    assert found(live, late, online=False) == []
    assert found(live, late, told=True) == []
    assert found(running(lc.Allocation("n1", "running")), late) == [], "its lease ends it"
    assert found(running(lc.Allocation("n1", "ended"), waits=True), late) == []


def ended(live: Live, epoch: int = 7) -> Any:
    return {"key": live.key("c"), "epoch": epoch, "state": "ended", "outcome": "done"}


def test_what_has_ended_is_not_given_up_while_what_it_left_is_on_its_way() -> None:
    """Nobody renews the lease of what is over, and a large checkpoint takes longer than that."""
    live = running(lc.Allocation("n1", "running"), timeout=60.0)
    n1 = link(live, heard_at=2_000.0)
    n1.reports[live.key("c")] = ended(live)
    n1.clock_at = 5_000.0
    bound = 5_000.0 + LEASE + GRACE + LEASE_MARGIN
    assert gone(live, {"n1": n1}, bound) == []
    assert gone(live, {"n1": n1}, bound + 0.1) != [], "now the node is silent too"
    assert list(deadlines.timeouts([live], {"n1": n1}, "c", 1e9)) == [], "it runs no longer"
    n1.reports[live.key("c")] = ended(live, epoch=6)
    assert gone(live, {"n1": n1}, bound) != [], "that was an earlier attempt"
    assert list(deadlines.timeouts([live], {"n1": n1}, "c", 1e9)) != []


@pytest.mark.parametrize("phase", ["ended", "gone"])
def test_what_is_over_is_not_given_up(phase: Any) -> None:
    assert gone(running(lc.Allocation("n1", phase)), {}, 1e9) == []


def test_what_was_never_launched_has_no_lease() -> None:
    assert gone(running(lc.Allocation("n1", "pending"), started_at=None), {}, 1e9) == []


def test_a_time_limit_counts_from_the_start_and_moves_with_the_clock() -> None:
    live = running(lc.Allocation("n1", "running"), timeout=60.0)
    assert list(deadlines.timeouts([live], {}, "c", 560.0)) == []
    assert list(deadlines.timeouts([live], {}, "c", 560.1)) == [(live, lc.Timeout(60.0))]
    live.moved = 3_600.0
    assert list(deadlines.timeouts([live], {}, "c", 560.1)) == [], "an hour that never was"
    assert list(deadlines.timeouts([running(lc.Allocation("n1", "running"))], {}, "c", 1e9)) == []
