"""How a guard leaves the service that started it: a bus and control groups made of plain files.

On a real systemd it is seen by tests/hosts.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agents.node.guard import guard, scope
from agents.node.staging.environment import base_environment, guard_environment

RANKS = "quarterdeck-ranks.service"


class Bus:
    """Lets everybody in and answers each call in turn: with an error where there is a word for one."""

    def __init__(self, path: Path) -> None:
        self.errors: list[str] = []
        self.calls: list[bytes] = []
        self.after_call: Callable[[], None] = lambda: None
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return
            with caller:
                self.calls.append(caller.recv(4096))
                caller.sendall(b"OK 0123456789abcdef\r\n")
                self.calls.append(caller.recv(65536))
                self.after_call()
                caller.sendall(
                    answer(1, b"") + answer(2, self.errors.pop(0).encode() if self.errors else b"")
                )


def answer(serial: int, error: bytes) -> bytes:
    """A reply to a call, or an error with its text."""
    fields = b"\5\1u\0" + struct.pack("<I", serial)
    body = struct.pack("<I", len(error)) + error + b"\0" if error else b""
    kind = 3 if error else 2
    return struct.pack("<cBBBIII", b"l", kind, 1, 1, len(body), 9, len(fields)) + fields + body


@pytest.fixture
def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bus]:
    """A bus, and a control group that this process is in."""
    own = tmp_path / "system.slice" / "quarterdeck-worker.service"
    (tmp_path / "system.slice" / RANKS).mkdir(parents=True)
    monkeypatch.setattr(scope, "own_group", lambda: str(own))
    monkeypatch.setattr(scope, "_AGAIN", (0.001, 0.0))
    monkeypatch.setattr(scope, "_RUNNING", str(tmp_path))
    monkeypatch.setattr(scope, "_BUS", str(tmp_path / "bus"))
    made = Bus(tmp_path / "bus")
    yield made
    made.close()


def test_a_guard_joins_the_unit_that_holds_ranks(bus: Bus, tmp_path: Path) -> None:
    home = scope.leave("qd-j1", {scope.UNIT: RANKS})
    assert home == str(tmp_path / "system.slice" / RANKS)
    assert (Path(home) / "guards").is_dir(), (
        "a leaf: below a group with processes nothing is limited"
    )
    hello, call = bus.calls
    assert hello == b"\0AUTH EXTERNAL " + str(os.geteuid()).encode().hex().encode() + b"\r\n"
    assert b"AttachProcessesToUnit\0" in call
    text = RANKS.encode()
    padded = struct.pack("<I", len(text)) + text + b"\0" * (4 - len(text) % 4)
    leaf = struct.pack("<I", 7) + b"/guards\0"
    assert call.endswith(padded + leaf + struct.pack("<II", 4, os.getpid()))


def test_guards_hear_of_the_unit_and_ranks_do_not() -> None:
    environ = {scope.UNIT: RANKS, "PATH": "/bin", "RAY_X": "1"}
    assert guard_environment(environ)[scope.UNIT] == RANKS
    assert scope.UNIT not in guard_environment({})
    assert scope.UNIT not in base_environment(environ)


def test_a_unit_that_is_just_starting_is_asked_again(bus: Bus) -> None:
    bus.errors = ["Unit is not active."]
    assert scope.leave("qd-j1", {scope.UNIT: RANKS}) is not None
    assert len(bus.calls) == 4


def test_a_refusal_has_systemds_own_words(bus: Bus) -> None:
    bus.errors = ["Access denied", "Access denied"]
    with pytest.raises(PermissionError, match="Access denied"):
        scope.leave("qd-j1", {scope.UNIT: RANKS})


def test_root_gets_a_scope_of_its_own(
    bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    made = tmp_path / "qd-ranks.slice" / "qd-j1.scope"
    made.mkdir(parents=True)
    bus.after_call = lambda: monkeypatch.setattr(scope, "own_group", lambda: str(made))
    assert scope.leave("qd-j1", {}) == str(made)
    assert (made / "guards" / "cgroup.procs").read_text() == "0"
    call = bus.calls[1]
    assert b"StartTransientUnit\0" in call
    assert struct.pack("<II", 4, os.getpid()) in call


def test_nobody_is_asked_where_no_systemd_runs(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scope, "_RUNNING", "/nowhere")
    assert scope.leave("qd-j1", {scope.UNIT: RANKS}) is None
    assert bus.calls == []


def test_a_guard_that_is_refused_runs_its_ranks_all_the_same(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(guard, "complain", said.append)
    monkeypatch.setenv(scope.UNIT, RANKS)
    bus.errors = ["Access denied", "Access denied"]
    assert guard.leave_unit("qd-j1") is None
    assert said == ["this guard remains in the unit that started it: Access denied"]
