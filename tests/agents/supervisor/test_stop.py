"""What `qd down` does to jobs that still run here."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from agents.node.guard import records as node_records
from agents.supervisor import teardown
from agents.supervisor.__main__ import stop
from agents.supervisor.process import Identity
from jobs.base.errors import Conflict
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
        assert answer == {"stopped": False, "ranks": [key]}
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
    assert stop(where, ranks=False) == {"stopped": False, "ranks": []}


def test_down_where_nothing_ever_was(tmp_path: Path) -> None:
    assert stop(places({"QD_HOME": str(tmp_path / "no")}), ranks=True)["stopped"] is False
    assert not (tmp_path / "no").exists(), "and nothing is made"
