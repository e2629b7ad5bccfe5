"""What a service manager hears."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents.supervisor.notify import Notifier


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    monkeypatch.chdir(tmp_path)  # a socket's path may be short only
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind("notify")
        heard.setblocking(False)
        yield heard


def words(manager: socket.socket) -> list[str]:
    try:
        return manager.recv(4096).decode().splitlines()
    except BlockingIOError:
        return []


def test_readiness_is_said_once_and_the_status_when_it_changes(manager: socket.socket) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": "notify"})
    notifier.alive(0.0, False, "starting")
    assert words(manager) == ["STATUS=starting"]
    assert notifier.waits_for_ready
    notifier.alive(1.0, True, "runs")
    assert words(manager) == ["READY=1", "STATUS=runs"]
    assert not notifier.waits_for_ready
    notifier.alive(2.0, True, "runs")
    assert words(manager) == []
    notifier.stopping(60)
    assert words(manager)[0] == "STOPPING=1"


def test_signs_of_life_come_twice_in_the_time_allowed(manager: socket.socket) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": "notify", "WATCHDOG_USEC": "10000000"})
    assert notifier.every == 5.0
    seen = []
    for now in range(12):
        notifier.alive(float(now), True, "runs")
        seen.append("WATCHDOG=1" in words(manager))
    assert [now for now, alive in enumerate(seen) if alive] == [0, 5, 10]


def test_what_we_start_does_not_speak_for_us() -> None:
    environ = {"NOTIFY_SOCKET": "notify", "WATCHDOG_USEC": "1", "PATH": "/bin"}
    Notifier(environ)
    assert environ == {"PATH": "/bin"}


def test_without_a_manager_nobody_is_told() -> None:
    notifier = Notifier({"WATCHDOG_USEC": "1000"})
    assert notifier.every is None
    assert not notifier.waits_for_ready
    notifier.alive(0.0, True, "runs")
    notifier.stopping(1)


def test_a_manager_that_has_gone_is_no_fault_of_ours() -> None:
    Notifier({"NOTIFY_SOCKET": "/nowhere/notify"}).alive(0.0, True, "runs")
