"""The holder: what it keeps of what it inherits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from agents.node.shells import holder
from tests.waiting import until


def test_it_keeps_nothing_open_of_whoever_starts_it(tmp_path: Path) -> None:
    """A descriptor that was inherited may be the other end of what the agent waits for."""
    (tmp_path / "work").mkdir()
    read, write = os.pipe()
    rank = subprocess.Popen(["sleep", "60"])
    spec = {
        "folder": str(tmp_path),
        "work": str(tmp_path / "work"),
        "socket": "s",
        "pid": rank.pid,
        "cgroup": None,
        "argv": ["sleep", "60"],
        "env": dict(os.environ),
        "terminal": False,
        "rows": 1,
        "columns": 1,
        "keep": True,
    }
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", holder.__file__],
            input=json.dumps(spec).encode(),
            capture_output=True,
            pass_fds=(write,),
            timeout=30,
            check=True,
        )
        os.close(write)
        assert done.stdout == b"ok\n"
        started = time.monotonic()
        assert os.read(read, 1) == b""
        assert time.monotonic() - started < 30
    finally:
        os.close(read)
        rank.kill()
        rank.wait()
    until(lambda: not (tmp_path / "s").exists(), "the holder to end with its rank")
