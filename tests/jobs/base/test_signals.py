from __future__ import annotations

import signal

from jobs.base.signals import signal_name, signal_number


def test_every_signal_has_a_name_that_leads_back_to_it() -> None:
    for number in range(1, 128):
        assert signal_number(signal_name(number)) == number
    for member in signal.Signals:
        assert signal_name(member) == member.name


def test_real_time_signals_are_numbered_from_the_first() -> None:
    assert signal_name(35) == f"SIGRTMIN+{35 - signal.SIGRTMIN}"
    assert signal_name(63) == f"SIGRTMIN+{63 - signal.SIGRTMIN}"
    assert signal_number("nonsense") is None
