from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

from agents.supervisor.process import Identity, members, stop, sweep

from .conftest import Spawn, until

WAIT = "import sys, time; sys.stdout.write('.'); sys.stdout.flush(); time.sleep(60)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + WAIT
CHILD = (
    "import subprocess, sys, time\n"
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], close_fds=True,\n"
    "                 stdout=subprocess.DEVNULL, start_new_session=len(sys.argv) > 1)\n" + WAIT
)


def test_a_process_is_known_by_pid_and_start_time(spawn: Spawn) -> None:
    process = spawn(WAIT)
    assert process.alive
    assert not replace(process, started=process.started + 1).alive, "another one with its pid"
    assert not replace(process, boot="another").alive, "before the machine was restarted"
    assert Identity.from_json(process.to_json()) == process
    assert Identity.from_json({"pid": "x"}) is None
    assert Identity.from_json(None) is None


def test_stop_asks_first_and_kills_what_does_not_listen(spawn: Spawn) -> None:
    gentle, stubborn = spawn(WAIT), spawn(STUBBORN)
    stop(gentle, grace=10)
    began = time.monotonic()
    stop(stubborn, grace=0.1)
    assert time.monotonic() - began >= 0.1
    assert not gentle.alive
    assert not stubborn.alive
    stop(gentle, grace=10)  # gone already: nothing happens


def test_sweep_ends_the_whole_session_even_when_its_leader_is_dead(spawn: Spawn) -> None:
    leader = spawn(CHILD)
    assert len(members(leader, None)) == 2
    os.kill(leader.pid, 9)
    until(lambda: not leader.alive)
    assert len(members(leader, None)) == 1, "its child is still found by the session"
    assert sweep(leader, None) == []
    assert members(leader, None) == []


def test_what_left_the_session_is_left_alone(spawn: Spawn) -> None:
    """As a guard does: Ray goes, the guard stays."""
    leader = spawn(CHILD, "setsid")
    assert [entry.pid for entry in members(leader, None)] == [leader.pid]
    child = int(Path(f"/proc/{leader.pid}/task/{leader.pid}/children").read_text())
    try:
        assert sweep(leader, None) == []
        assert Identity.of(child) is not None
    finally:
        os.kill(child, 9)


def test_a_pid_that_another_process_has_now_is_not_swept(spawn: Spawn) -> None:
    process = spawn(WAIT)
    before = replace(process, started=process.started - 100)
    assert members(before, None) == []


def test_processes_are_found_by_an_option_that_names_the_folder(
    spawn: Spawn, tmp_path: Path
) -> None:
    named = spawn(WAIT, f"--temp-dir={tmp_path}")
    below = spawn(WAIT, f"--log_dir={tmp_path}/session/logs")
    spawn(WAIT, str(tmp_path / "log"))  # a person's `tail`
    spawn(WAIT, f"--temp-dir={tmp_path}-other")
    assert {entry.pid for entry in members(None, tmp_path)} == {named.pid, below.pid}
