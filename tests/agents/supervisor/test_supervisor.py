"""The loop with small programs in place of Ray and the controller."""

from __future__ import annotations

import dataclasses
import errno
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents.supervisor import head, solo, teardown
from agents.supervisor import record as records
from agents.supervisor.notify import Notifier
from agents.supervisor.policy import Asked, Size
from agents.supervisor.process import Identity
from agents.supervisor.program import Program
from agents.supervisor.pulse import Pulse
from agents.supervisor.supervisor import Settings, Supervisor
from jobs.base.errors import Conflict
from jobs.base.places import Places

from .conftest import Spawn, end, until

SLEEP = "import time; time.sleep(60)"


@pytest.fixture
def settings(where: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    (tmp_path / "sleepy.py").write_text(SLEEP)

    def command(
        places: Places, node: str, size: Size, address: str, port: int, ports: int | None
    ) -> list[str]:
        return [sys.executable, "-c", SLEEP, f"--temp-dir={head.folder(places)}", str(port)]

    monkeypatch.setattr(head, "command", command)
    environ = dict(os.environ) | {"PYTHONPATH": str(tmp_path)}
    size = Size(2, 1, simulated=True)
    yield Settings(where, Asked(simulate_gpus=1), size, "n1", "127.0.0.1", "sleepy", 0o022, environ)
    teardown.take_down(where, records.read(where.cluster_file))


@pytest.fixture
def wake() -> Iterator[socket.socket]:
    one, other = socket.socketpair()
    yield one
    one.close()
    other.close()


def running(where: Places) -> dict[str, Identity | None]:
    record = records.read(where.cluster_file)
    assert record is not None
    return records.processes(record)


def drop(supervisor: Supervisor) -> None:
    """Let go of the children as a supervisor that is killed does."""
    for program in supervisor.programs.values():
        if program.descriptor is not None:
            os.close(program.descriptor)
        child = program._child
        if child is not None:
            child.returncode = 0  # so that Popen does not warn


def test_what_dies_is_started_again_and_written_down(
    settings: Settings, wake: socket.socket
) -> None:
    supervisor = Supervisor(settings, None)
    supervisor._start_what_is_due()
    first = running(settings.places)
    assert all(process and process.alive for process in first.values())
    before = records.read(settings.places.cluster_file)
    assert before is not None
    assert (before["ray"]["incarnation"], before["cpus"], before["gpus"]) == (1, 2, 1)

    end(first["ray"])
    supervisor._wait(wake)
    assert running(settings.places)["ray"] is None, "nobody may take the dead one for Ray"
    supervisor._start_what_is_due()
    second = running(settings.places)
    assert second["ray"] != first["ray"]
    assert second["controller"] == first["controller"], "the other one is left alone"
    after = records.read(settings.places.cluster_file)
    assert after is not None
    assert after["ray"]["incarnation"] == 2
    assert after["ray_address"] == before["ray_address"], "nodes know the head by its address"
    assert after["ray"]["exit"] == "killed by SIGKILL"
    assert len(after["ray"]["restarts"]) == 1

    end(second["ray"])
    supervisor._wait(wake)
    supervisor._start_what_is_due()
    assert supervisor.ray.process is None, "the second restart in a row waits"
    assert supervisor.ray.due is not None
    drop(supervisor)


def test_a_service_is_ready_once_its_api_answers(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[tuple[bool, str]] = []
    monkeypatch.setattr(Notifier, "waits_for_ready", True)
    monkeypatch.setattr(Notifier, "alive", lambda _, now, *words: said.append(words))
    up = False
    monkeypatch.setattr("agents.supervisor.supervisor.answers", lambda path: up)
    supervisor = Supervisor(settings, None)
    supervisor._start_what_is_due()
    supervisor._notify()
    up = True
    supervisor._notify()
    assert [ready for ready, _ in said] == [False, True]
    for name, process in running(settings.places).items():
        assert process is not None
        assert f"{name} runs, pid {process.pid}" in said[-1][1]
    drop(supervisor)


def test_a_watchdog_is_never_kept_waiting(
    settings: Settings, wake: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop turns at least twice for each sign of life, though nothing else is due for long."""
    waited: list[float | None] = []

    class Poller:
        def register(self, descriptor: object, mask: int) -> None: ...

        def poll(self, milliseconds: float | None) -> list[tuple[int, int]]:
            waited.append(milliseconds)
            return []

    monkeypatch.setattr("agents.supervisor.supervisor.select.poll", Poller)
    notifier = Notifier({"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "2000000"})
    notifier.alive(0.0, True, "")
    worker = dataclasses.replace(settings, asked=Asked(head="127.0.0.1:1"))
    supervisor = Supervisor(worker, None, notifier)
    supervisor.ray.due = None
    supervisor._wait(wake)
    (milliseconds,) = waited
    assert milliseconds is not None
    assert milliseconds <= 501


def test_a_new_supervisor_adopts_what_runs(settings: Settings, wake: socket.socket) -> None:
    dead = Supervisor(settings, None)
    dead._start_what_is_due()
    drop(dead)
    first = running(settings.places)

    supervisor = Supervisor(settings, records.read(settings.places.cluster_file))
    supervisor._start_what_is_due()
    supervisor._write()
    assert running(settings.places) == first

    end(first["controller"])
    supervisor._wait(wake)
    supervisor._start_what_is_due()
    second = running(settings.places)
    assert second["controller"] not in (None, first["controller"])
    assert second["ray"] == first["ray"]
    drop(supervisor)


def test_what_a_dead_ray_left_is_ended_before_the_next_one_starts(
    settings: Settings, spawn: Spawn
) -> None:
    program = "import sys, time; print(end='.', flush=True); time.sleep(60)"
    stray = spawn(program, f"--session-dir={head.folder(settings.places)}/session_x")
    supervisor = Supervisor(settings, None)
    supervisor._start_what_is_due()
    until(lambda: not stray.alive)
    drop(supervisor)


def test_a_program_that_cannot_be_started_is_tried_again_later(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head, "command", lambda *_: ["/nowhere/ray"])
    supervisor = Supervisor(settings, None)
    supervisor._start_what_is_due()
    assert supervisor.ray.process is None
    assert supervisor.ray.due is not None
    assert supervisor.programs["controller"].process is not None, (
        "the other one starts all the same"
    )
    drop(supervisor)


def test_take_down_leaves_nothing(settings: Settings) -> None:
    where = settings.places
    supervisor = Supervisor(settings, None)
    supervisor._start_what_is_due()
    started = running(where)
    where.socket.touch()
    drop(supervisor)
    assert teardown.remains(where, records.read(where.cluster_file))
    assert teardown.take_down(where, records.read(where.cluster_file)) == []
    assert not any(process and process.alive for process in started.values())
    assert not where.ray_temp.exists()
    assert not where.socket.exists()
    assert not where.cluster_file.exists()
    assert teardown.take_down(where, None) == [], "and again"


def test_a_controller_that_could_not_be_written_down_is_found_by_the_next_supervisor(
    settings: Settings, wake: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full when the controller is started again, and the supervisor is killed."""
    lock = settings.places.controller_lock
    locked = f"import fcntl; file = open({str(lock)!r}, 'w'); fcntl.lockf(file, fcntl.LOCK_EX)"
    (tmp_path / "sleepy.py").write_text(f"{locked}; {SLEEP}")
    supervisor = Supervisor(settings, None)
    supervisor._start_what_is_due()
    first = running(settings.places)["controller"]
    assert first is not None
    with monkeypatch.context() as full:
        full.setattr(records, "write", write_to_a_full_disk)
        end(first)
        supervisor._wait(wake)
        supervisor._start_what_is_due()
    stray = supervisor.programs["controller"].process
    assert stray is not None
    until(lambda: solo.known(settings.places, None) == {"controller": stray})
    drop(supervisor)
    second = Supervisor(settings, records.read(settings.places.cluster_file))
    assert second.programs["controller"].process == stray, "adopted, not doubled"
    drop(second)
    assert teardown.take_down(settings.places, records.read(settings.places.cluster_file)) == []
    assert not stray.alive


def test_what_could_not_be_written_down_is_as_soon_as_there_is_room(
    settings: Settings, wake: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = Supervisor(settings, None)
    with monkeypatch.context() as full:
        full.setattr(records, "write", write_to_a_full_disk)
        supervisor._start_what_is_due()
    assert not settings.places.cluster_file.exists()
    supervisor._wait(wake)  # not for the five seconds until the next look at the controller
    supervisor._start_what_is_due()
    assert running(settings.places)["controller"] == supervisor.programs["controller"].process
    drop(supervisor)


def write_to_a_full_disk(path: Path, record: records.ClusterRecord) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_two_controllers_never_share_a_registry(tmp_path: Path, spawn: Spawn) -> None:
    lock = tmp_path / "controller.lock"
    wait = "print('!', flush=True); import time; time.sleep(60)"
    first = spawn(f"import fcntl; f = open({str(lock)!r}, 'w'); fcntl.lockf(f, 2); {wait}")
    with pytest.raises(Conflict, match=f"pid {first.pid}"):
        solo.hold(lock, patience=0.1)
    end(first)
    os.close(solo.hold(lock))


def test_a_long_log_is_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.supervisor.program.LOG_LIMIT", 10)
    log = tmp_path / "x.log"
    log.write_text("much too long")
    program = Program("x", log)
    program.start([sys.executable, "-c", "print('new')"], {}, 0o077, 0.0, 0.0)
    assert program._child is not None
    program._child.wait()
    assert program.died(1.0, 1.0) == 0.0
    assert log.read_text() == "new\n"
    assert (tmp_path / "x.log.1").read_text() == "much too long"
    assert program.exit == "exit code 0"


def test_a_program_that_cannot_be_started_is_tried_less_and_less_often(tmp_path: Path) -> None:
    """However long it was up before: its folder may be gone, or full, for hours."""
    program = Program("x", tmp_path / "x.log")
    program.start([sys.executable, "-c", ""], {}, 0o077, 0.0, 0.0)
    assert program._child is not None
    program._child.wait()
    assert program.died(600.0, 600.0) == 0.0
    program.log = tmp_path / "gone" / "x.log"
    waits, now = [], 600.0
    for _ in range(4):
        with pytest.raises(FileNotFoundError):
            program.start([sys.executable, "-c", ""], {}, 0o077, now, now)
        waits.append(program.failed(now, now))
        now += waits[-1]
    assert waits == [1.0, 2.0, 4.0, 8.0]


def test_a_controller_that_hangs_is_ended_and_started_again(
    settings: Settings, wake: socket.socket
) -> None:
    supervisor = Supervisor(settings, None)
    supervisor._start_what_is_due()
    first = running(settings.places)["controller"]
    assert first is not None
    supervisor.pulse = Pulse(lambda: False)
    supervisor.pulse._heard = 0.0  # it did answer once, long ago
    supervisor._end_what_hangs()
    assert not first.alive
    supervisor._wait(wake)
    supervisor._start_what_is_due()
    second = running(settings.places)["controller"]
    assert second is not None
    assert second.alive
    drop(supervisor)
