"""How processes are told from one another."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from agents.node.guard import records


def test_a_process_in_the_middle_of_an_exec_is_found(tmp_path: Path) -> None:
    """Its environment is empty for a moment then: about one look in fifty would miss it."""
    script, tag = tmp_path / "again.sh", f"c-j1.1@{tmp_path}"
    script.write_text(f"exec sh {script}\n")
    with subprocess.Popen(["sh", script], env={**os.environ, "QD_GUARD": tag}) as process:
        try:
            looks = [list(records.tagged(tag)) for _ in range(300)]
        finally:
            process.kill()
    assert [found for found in looks if found != [process.pid]] == []


def test_a_process_that_is_over_is_not_found(tmp_path: Path) -> None:
    tag = f"c-j1.1@{tmp_path}"
    with subprocess.Popen(["true"], env={"QD_GUARD": tag}) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert list(records.tagged(tag)) == [], "only its zombie is left"
