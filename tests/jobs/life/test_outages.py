"""What leases may last beyond the jobs' own, and how long a controller has to reckon with it."""

from __future__ import annotations

from jobs.life.outages import Ahead


def test_without_a_maintenance_a_lease_is_the_jobs_own() -> None:
    ahead = Ahead()
    assert not ahead.in_force(5.0)
    assert ahead.longer(5.0) == 0.0
    assert ahead.bound(None, 100.0, 90.0) == 190.0
    assert ahead.bound(130.0, 100.0, 90.0) == 130.0, "what was granted counts"


def test_leases_last_to_its_end_whenever_they_are_granted() -> None:
    ahead = Ahead().begun(100.0, 600.0)
    assert [now + ahead.longer(now) for now in (100.0, 400.0, 700.0, 800.0)] == [
        700.0,
        700.0,
        700.0,
        800.0,
    ]
    assert ahead.in_force(699.9)
    assert not ahead.in_force(700.0)


def test_what_is_ended_grants_nothing_more() -> None:
    ahead = Ahead().begun(100.0, 600.0).ended(300.0)
    assert not ahead.in_force(300.0)
    assert ahead.longer(300.0) == 0.0
    assert Ahead().begun(100.0, 50.0).ended(300.0).until == 150.0, "it was over before"


def test_a_later_controller_reckons_with_what_earlier_ones_granted() -> None:
    """They may have granted it just before it began, whatever is left of the maintenance itself."""
    for left in (0.0, 20.0):
        ahead = Ahead.resumed(1_000.0, longest=600.0, left=left)
        assert ahead.in_force(1_010.0) is (left > 10.0)
        assert ahead.bound(None, 1_000.0, 90.0) == 1_690.0
        assert ahead.bound(1_095.0, 1_000.0, 90.0) == 1_690.0, "its own grant takes nothing back"
        assert ahead.bound(2_000.0, 1_000.0, 90.0) == 2_000.0
    assert Ahead.resumed(1_000.0, longest=0.0, left=0.0) == Ahead()
