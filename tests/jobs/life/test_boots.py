from __future__ import annotations

import pytest

from jobs.life.boots import named, restarted


@pytest.mark.parametrize(
    ("then", "now", "proves"),
    [
        (named("m1", "a"), named("m1", "b"), True),
        (named("m1", "a"), named("m1", "a"), False),
        (named("m1", "a"), named("m2", "b"), False),  # another machine took its name
        (named("", "a"), named("", "b"), False),  # nobody knows which machine
        ("", named("m1", "b"), False),
        (named("m1", "a"), "", False),
    ],
)
def test_only_the_same_machine_in_another_boot_proves_it(then: str, now: str, proves: bool) -> None:
    assert restarted(then, now) is proves
