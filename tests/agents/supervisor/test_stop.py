"""What `qd down` does to jobs that still run here."""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path

import pytest

import agents.supervisor.__main__ as supervisor
from agents.node.guard import records as node_records
from agents.supervisor import teardown
from agents.supervisor.__main__ import stop
from agents.supervisor.process import Identity
from jobs.base.errors import Conflict, StorageFull
from jobs.base.places import Places, places

from .conftest import Spawn

GUARD = """
import os, signal, subprocess, sys, time
if sys.argv[2] == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
env = os.environ | {"QD_GUARD": sys.argv[1]}
rank = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], env=env,
                        start_new_session=True, stdout=subprocess.DEVNULL)
sys.stdout.write("."); sys.stdout.flush()
time.sleep(60)
"""


def attempt(node: Path, key: str, guard: Identity) -> None:
    """Leave the handle that a guard writes."""
    folder = node / "attempts" / key
    folder.mkdir(parents=True)
    handle = {"pid": guard.pid, "start_time": guard.started, "boot_id": guard.boot}
    handle |= {"cgroup": None, "tag": key}
    (folder / node_records.HANDLE).write_text(json.dumps(handle))


def ranks(key: str) -> list[int]:
    return list(node_records.tagged(key))


def test_down_refuses_while_ranks_run_and_names_them(where: Places, spawn: Spawn) -> None:
    key = f"t{os.getpid()}-j1.1"
    guard = spawn(GUARD, key, "listens")
    attempt(where.node, key, guard)
    try:
        with pytest.raises(Conflict, match=key):
            stop(where, ranks=False)
        assert guard.alive
        assert ranks(key)
        answer = stop(where, ranks=True)
        assert answer == {"stopped": False, "ranks": [key], "problems": []}
        assert not guard.alive
        assert ranks(key) == []
    finally:
        node_records.kill_left_over(key, None)


def test_a_guard_that_does_not_listen_is_killed_with_its_ranks(
    where: Places, spawn: Spawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teardown, "GUARD_GRACE", 0.2)
    key = f"t{os.getpid()}-j2.1"
    guard = spawn(GUARD, key, "deaf")
    attempt(where.node, key, guard)
    began = time.monotonic()
    assert teardown.stop_ranks(where.node) == [key]
    assert time.monotonic() - began < 5
    assert not guard.alive
    assert ranks(key) == []


def test_a_disk_that_fails_keeps_nothing_running(
    where: Places, spawn: Spawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what was started for this state folder is stopped."""

    def fail(_: Places) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(supervisor, "Lock", fail)
    sleep = "import sys, time; sys.stdout.write('.'); sys.stdout.flush(); time.sleep(60)"
    key, other = f"t{os.getpid()}-j4.1", f"t{os.getpid()}-j5.1"
    started = {}
    for name, node in ((key, where.node), (other, where.node.with_name("elsewhere"))):
        monkeypatch.setenv("QD_GUARD", name)
        monkeypatch.setenv("QD_WORK_DIR", str(node / "attempts" / name / "work"))
        started[name] = spawn(sleep)
    with pytest.raises(StorageFull, match="Input/output error"):
        stop(where, ranks=False)
    assert started[key].alive
    answer = stop(where, ranks=True)
    assert (answer["stopped"], answer["ranks"]) == (True, [key])
    assert "Input/output error" in answer["problems"][0]
    assert not started[key].alive
    assert started[other].alive


def test_a_guard_whose_handle_is_damaged_counts(where: Places, spawn: Spawn) -> None:
    folder = where.node / "attempts" / "c-j6.1"
    folder.mkdir(parents=True)
    (folder / node_records.HANDLE).write_text("{")
    program = "import os, sys, time; os.chdir(sys.argv[1]); print('.', flush=True); time.sleep(60)"
    guard = spawn(program, str(folder), "agents/node/guard/guard.py")
    assert teardown.guards(where.node) == {"c-j6.1": guard}
    with pytest.raises(Conflict, match=r"c-j6\.1"):
        stop(where, ranks=False)


def test_guards_of_the_past_do_not_count(where: Places) -> None:
    own = Identity.of(os.getpid())
    assert own is not None
    attempt(where.node, "c-j1.1", Identity(own.pid, own.started + 1, own.boot))
    attempt(where.node, "c-j2.1", Identity(own.pid, own.started, "before the reboot"))
    (where.node / "attempts" / "c-j3.1").mkdir()
    (where.node / "attempts" / "c-j3.1" / node_records.HANDLE).write_text("{")
    attempt(where.node, "c-j4.1", own)
    (where.node / "attempts" / "c-j4.1" / node_records.EXIT).write_text("{}")  # about to end
    assert teardown.guards(where.node) == {}
    assert stop(where, ranks=False) == {"stopped": False, "ranks": [], "problems": []}


def test_down_where_nothing_ever_was(tmp_path: Path) -> None:
    assert stop(places({"QD_HOME": str(tmp_path / "no")}), ranks=True)["stopped"] is False
    assert not (tmp_path / "no").exists(), "and nothing is made"
